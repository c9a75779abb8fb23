"""The outcome of a call: rules where they are nearly certain, else the trained classifier.

Rules decide a mailbox, an operator's announcement, an empty line and an explicit "never call again". Everything else is
decided by `classifier` from the whole conversation. Where it is unsure, the outcome is `Connected`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.transcription import announcements
from app.transcription.base import SpokenTurn
from app.transcription.classifier import probabilities

INTERESTED = "Interested"
NOT_INTERESTED = "Not interested"
CALLBACK = "Callback requested"
WRONG_NUMBER = "Wrong number"
DO_NOT_CALL = "Do not call"
VOICEMAIL = "Voicemail"
NO_CONVERSATION = "No conversation"
CONNECTED = "Connected"

OUTCOMES = (
    INTERESTED,
    NOT_INTERESTED,
    CALLBACK,
    WRONG_NUMBER,
    DO_NOT_CALL,
    VOICEMAIL,
    NO_CONVERSATION,
    CONNECTED,
)
"""The default set. Clients switch on these words, so they never change."""

DETAILS = {
    "Appointment fixed": INTERESTED,
    "Already has it": NOT_INTERESTED,
    "Third person answered": CONNECTED,
    "Language barrier": CONNECTED,
    "Payment promised": CONNECTED,
}
"""Finer outcomes, each with the one of the default set that is answered instead unless a user chose the detailed set.
A third person who asks to be called later is a `Callback requested` in the default set."""

CLASSES = {
    "interested": (INTERESTED, None),
    "appointment": (INTERESTED, "Appointment fixed"),
    "not_interested": (NOT_INTERESTED, None),
    "already_has": (NOT_INTERESTED, "Already has it"),
    "callback": (CALLBACK, None),
    "third_callback": (CALLBACK, "Third person answered"),
    "third_person": (CONNECTED, "Third person answered"),
    "wrong_number": (WRONG_NUMBER, None),
    "do_not_call": (DO_NOT_CALL, None),
    "language_barrier": (CONNECTED, "Language barrier"),
    "payment_promised": (CONNECTED, "Payment promised"),
    "voicemail": (VOICEMAIL, None),
    "connected": (CONNECTED, None),
}
"""The classes of the corpus: outcome and detail."""

UNSURE = 0.35
"""Below this certainty the outcome is `Connected`."""
_DETAIL_SHARE = 0.6
"""A detail is named if it has this share of its outcome's certainty."""
_LISTENED_WORDS = 30
"""An agent who said this many words talked to somebody, also if that side was not heard."""
_EVIDENCE_TURNS = 6

# Read from everybody but the agent: a person's own greeting, or a mailbox.
_VOICEMAIL = re.compile(
    r"\b(?:leave|record) (?:\w+ )?(?:a |your )?(?:\w+ ){0,3}message\b|\bafter the (?:tone|beep)\b|\bvoice ?mail\b|\bmailbox\b|"
    r"\b(?:i|we)(?:'m| am| are|'re)? (?:can't|cannot|can not|unable to|not able to|couldn't) (?:\w+ )?(?:take|answer|attend|come to) (?:your |the |this )(?:call|phone)\b|"
    r"\bsandesh\b.*\bchh?od|\bsandesh record|बीप के बाद|संदेश (?:छोड़|छोड|रिकॉर्ड)|वॉइस ?मेल|वॉयस ?मेल|मैसेज (?:छोड़|रिकॉर्ड)",
    re.IGNORECASE,
)
_CALLS = r"(?:call(?:ing)?|ring(?:ing)?|phon(?:e|ing)|contact(?:ing)?)"
_NEVER_AGAIN = re.compile(
    rf"\b(?:do not|don't|dont|never)\s+(?:ever\s+)?{_CALLS}\s+(?:me|us|here|this number|on this number)?\s*(?:again|ever|any ?more)\b|"
    rf"\bstop {_CALLS} (?:me|us|this number|here)\b|"
    r"\b(?:remove|delete)\b[^.?!]*\b(?:my|this) (?:number|name)\b[^.?!]*\b(?:list|database|records|system)\b|"
    r"\btake (?:me|my (?:number|name)) (?:off|out of)\b",
    re.IGNORECASE,
)
_ONLY_NOW = re.compile(
    r"\b(?:now|today|tonight|tomorrow|before|until|till|at (?:work|night)|during|this week)\b", re.IGNORECASE
)
_SENTENCES = re.compile(r"[.?!।]+")
# Whole words, without punctuation.
_GREETING = re.compile("hello|hallo|helo|हेलो|हैलो")
_AGREES = re.compile("haan|han|ji|yes|hmm|जी|हाँ")
_LINE_CHECK = re.compile(
    f"{_GREETING.pattern}|{_AGREES.pattern}|"
    "hi|hey|sir|madam|ma'am|can|can't|cannot|you|hear|me|anyone|anybody|someone|there|is|am|i|audible|"
    "awaaz|aawaz|aa|rahi|hai|sun|rahe|hain|आवाज़|आवाज|आ|रही|है|सुन|रहे|हैं"
)


@dataclass(frozen=True, slots=True)
class OutcomeMatch:
    """The outcome, and the turn that shows it. None if no turn does.

    `certainty`: 0 to 1, 1 for a rule. `detail`: one of `DETAILS`, if one fits better than the outcome alone.
    """

    outcome: str
    evidence: SpokenTurn | None = None
    certainty: float = 1.0
    detail: str | None = None


def classify_outcome(turns: tuple[SpokenTurn, ...]) -> OutcomeMatch:
    """The outcome of the call. A recording without roles is read as if the customer had said everything.

    Raises `TranscriptionError` if the sentence model is missing.
    """
    decided = find_by_rules(turns)
    if decided is not None:
        return decided
    people, _ = announcements.without(turns)
    return _classified(people, [turn for turn in people if turn.role != "agent"])


def find_by_rules(turns: tuple[SpokenTurn, ...]) -> OutcomeMatch | None:
    """The outcome of a call where the rules are nearly certain."""
    for turn in turns:
        if turn.role != "agent" and _VOICEMAIL.search(turn.content.replace("’", "'")):
            return OutcomeMatch(VOICEMAIL, turn)
    people, machines = announcements.without(turns)
    others = [turn for turn in people if turn.role != "agent"]
    empty = _empty_line(people, others, machines)
    if empty is not None:
        return empty
    return next((OutcomeMatch(DO_NOT_CALL, turn) for turn in others if _forbids_calls(turn.content)), None)


def _empty_line(
    people: tuple[SpokenTurn, ...], others: list[SpokenTurn], machines: tuple[SpokenTurn, ...]
) -> OutcomeMatch | None:
    """The outcome where nobody talked to anybody, else None."""
    agents = [word for turn in people if turn.role == "agent" for word in _plain_words(turn.content)]
    if not others:
        talked = not machines and len(agents) >= _LISTENED_WORDS
        return OutcomeMatch(CONNECTED if talked else NO_CONVERSATION, machines[0] if machines else None)
    said = [word for turn in others for word in _plain_words(turn.content)]
    checks = _are_all(_LINE_CHECK, said) and any(map(_GREETING.fullmatch, said))
    if machines and (checks or len(said) < 4):
        return OutcomeMatch(NO_CONVERSATION, machines[0])
    only_hello = checks and not any(map(_AGREES.fullmatch, said)) and len(agents) < _LISTENED_WORDS
    if only_hello or (checks and _are_all(_LINE_CHECK, agents)):
        return OutcomeMatch(NO_CONVERSATION)
    return None


def _are_all(pattern: re.Pattern[str], words: list[str]) -> bool:
    return all(pattern.fullmatch(word) for word in words)


def _plain_words(text: str) -> list[str]:
    return [word.strip(".,?!।") for word in text.lower().replace("’", "'").split()]


def _forbids_calls(content: str) -> bool:
    return any(
        _NEVER_AGAIN.search(sentence) and not _ONLY_NOW.search(sentence)
        for sentence in _SENTENCES.split(content.replace("’", "'"))
    )


def _classified(people: Sequence[SpokenTurn], others: list[SpokenTurn]) -> OutcomeMatch:
    shares = probabilities(people)
    outcomes: dict[str, float] = {}
    for name, share in shares.items():
        outcome = CLASSES[name][0]
        outcomes[outcome] = outcomes.get(outcome, 0.0) + share
    best = max(outcomes, key=lambda outcome: outcomes[outcome])
    certainty = outcomes[best]
    if certainty < UNSURE:
        return OutcomeMatch(CONNECTED, None, certainty)
    finest = max((name for name in shares if CLASSES[name][0] == best), key=lambda name: shares[name])
    detail = CLASSES[finest][1] if shares[finest] >= _DETAIL_SHARE * certainty else None
    evidence = None if best == CONNECTED and detail is None else _evidence(people, others, finest)
    return OutcomeMatch(best, evidence, certainty, detail)


def _evidence(people: Sequence[SpokenTurn], others: list[SpokenTurn], name: str) -> SpokenTurn:
    """The turn that alone, with the agent's words before it, speaks most for this class."""

    def speaks_for(turn: SpokenTurn) -> float:
        place = people.index(turn)
        before = people[place - 1 : place] if place and people[place - 1].role == "agent" else ()
        return probabilities([*before, turn])[name]

    return others[0] if len(others) == 1 else max(others[-_EVIDENCE_TURNS:], key=speaks_for)
