"""The outcome of a call, by rules in English, Hindi and romanised Hindi, and a summary that only states facts.

The rules read the customer's words, one clause at a time. Each rule is a pattern with exceptions that reverse its
meaning ("I am *not* interested", "I *was* interested", "*I* will call you back"). To teach it a phrase, add it to a
table.
"""

import re
from dataclasses import dataclass

from app.transcription import announcements
from app.transcription.base import Digest, Role, SpokenTurn

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

_NOT = r"(?:not|never|no need to|n't|dont|cannot|nahi|nahin|mat|नहीं|नही|मत)"
_CALL = r"(?:call(?:ing)?|ring(?:ing)?|phon(?:e|ing)|contact(?:ing)?)"
_TIME = (
    r"(?:back|later|tomorrow|tonight|again|sometime|another time|some other time|next (?:week|month)|"
    r"in (?:the|an?|half|about|\w+) (?:\w+ )?(?:morning|afternoon|evening|minutes?|hours?|days?|weeks?)|"
    r"(?:on )?(?:mon|tues|wednes|thurs|fri|satur|sun)day|after|around|at (?:\w+))"
)
# Romanised and Devanagari "call/talk" with an imperative ending. "call kiya tha" (has called) has none.
_HINGLISH_CALL = (
    r"(?:call|phone|fone|baat)\s+(?:kar(?:o|na|iye|iyega|ein|en|e|enge|engey| do| dena| lena| lijiye)?|kijiye(?:ga)?)\b"
)
_HINDI_CALL = r"(?:कॉल|काल|फोन|फ़ोन|बात)\s+(?:कर(?:ना|ो|ें|िए|िएगा|िये|ेंगे| दो| देना| दीजिए| लेना| लीजिए)|कीजिए(?:गा)?)"
_HINGLISH_LATER = r"(?:baad|bad|kal|parso|parson|shaam|sham|subah|phir|fir|dobara|wapas|thodi der)"
_HINDI_LATER = r"(?:बाद|कल|परसों|शाम|सुबह|फिर|दोबारा|वापस|थोड़ी देर)"


@dataclass(frozen=True, slots=True)
class _Rule:
    outcome: str
    pattern: str
    unless: str = r"(?!)"
    """If this is found in the same clause, the pattern does not count."""


# Read from the customer, in every clause.
_RULES = (
    _Rule(
        DO_NOT_CALL,
        rf"(?:\b(?:do not|don't|dont|never|stop|quit|please don't)\s+(?:ever\s+)?{_CALL}\b)|"
        r"\b(?:remove|delete|take)\b.*\b(?:my )?(?:number|name|me)\b.*\b(?:list|off|from)|\btake me off\b|"
        r"\b(?:do not disturb|d n d|dnd)\b|"
        r"\b(?:call|phone|fone)\s+(?:mat|na|nahi)\s+kar|\bmat\s+(?:call|phone|fone)\s+kar|"
        r"(?:कॉल|फोन|फ़ोन)\s+(?:मत|न)\s+कर|मत\s+(?:कॉल|फोन|फ़ोन)\s+कर",
        unless=r"\b(?:now|right now|today|tonight|tomorrow|before|until|till|at (?:work|night)|during|this week|abhi|aaj)\b"
        r"|अभी|आज",
    ),
    _Rule(
        WRONG_NUMBER,
        r"\bwrong (?:number|person)\b|\b(?:no ?one|nobody|no person)\b.*\b(?:that|this) name\b|"
        r"\bgal[ae]t (?:number|nambar|no)\b|गलत (?:नंबर|नम्बर)|ग़लत नंबर",
        unless=rf"{_NOT}\s+(?:a |the )?(?:wrong|galat|गलत)",
    ),
    _Rule(
        CALLBACK,
        rf"\b(?:call|ring|phone|contact|try|reach)\b(?: (?:me|us|her|him))?(?: again)?,? {_TIME}\b|"
        r"\b(?:can|could|would|will) you (?:please )?(?:call|ring|phone|contact)\b|\bcall ?back\b|"
        rf"\b{_HINGLISH_LATER}\b(?:\s+\S+){{0,3}}?\s+{_HINGLISH_CALL}|"
        rf"{_HINDI_LATER}(?:\s+\S+){{0,3}}?\s+{_HINDI_CALL}",
        unless=r"\b(?:called|rang|phoned)\b|\b(?:kiya|kar raha|ki thi)\b|"
        rf"(?:\b(?:do|did|does|would|should|need)\s?{_NOT}|\bdon't|\bno need|\bnever|\bstop)\b.*\b(?:call|ring|phone)|"
        r"\b(?:i|we)(?:'ll| will| shall| can| would|'d)? (?:\w+ )?(?:call|ring|phone|contact)\b|\blet me (?:call|ring)\b|"
        r"\bmain (?:\S+ )*(?:call|phone) karu",
    ),
    _Rule(
        NOT_INTERESTED,
        r"(?:\bnot|n't)(?: \w+){0,2} (?:interested|interesting to me)\b|\bno interest\b|"
        r"\b(?:do not|don't|dont|doesn't)(?: really| actually)? (?:want|need|require)\b|\bno,? thank(?:s| you)\b|"
        r"\binterest(?:ed)?(?: \S+)? nahi|\bnahi(?:n)? (?:chahiye|chaiye|lena)|\b(?:zaroorat|jarurat|zarurat) nahi|"
        r"नहीं चाहिए|नही चाहिए|रुचि नहीं|इंटरेस्ट(?:ेड)? नहीं|(?:ज़रूरत|जरूरत) नहीं|नहीं लेना",
        unless=r"\b(?:was|were|wasn't|weren't|used to)\b|\bwant to miss\b|\b(?:earlier|before|pehle)\b|पहले",
    ),
    _Rule(
        INTERESTED,
        r"\binterested\b|\bsounds? (?:\w+ )?(?:good|great|nice|interesting|perfect|wonderful)\b|"
        r"\b(?:i|we)(?:'d| would) (?:like|love) (?!you\b)|\bsign (?:me|us) up\b|\bcount me in\b|"
        r"\b(?:send|email|mail|whatsapp|text) (?:me|us|it|them|the)\b|\blet's (?:do|go|proceed|book|start)\b|"
        r"\bgo ahead\b|\bbook (?:it|me|a|an|the)\b|\bi(?:'ll| will) take\b|\bi (?:really )?want (?:it|one|that|this|the|to)\b|"
        r"\binterest(?:ed)? (?:hai|hoon|hun|hu)\b|\b(?:haan|ha|han|mujhe)\b(?: \S+){0,2} (?:chahiye|chaiye)|"
        r"\b(?:bhej|bata) (?:do|dijiye|dena)|\bbhejiye|(?:हाँ|हां|मुझे)(?: \S+){0,2} चाहिए|रुचि है|इंटरेस्ट(?:ेड)? (?:है|हूँ|हूं|हैं)|भेज (?:दो|दीजिए|देना)",
        unless=rf"(?:\b|(?<=\w)){_NOT}\b|\b(?:was|were|used to)\b|\b(?:cancel|stop|complain|refund|remove)\b|नहीं|\bare you\b",
    ),
)

# Read from everybody but the agent: a person's own greeting, or a mailbox.
_VOICEMAIL = re.compile(
    r"\b(?:leave|record) (?:\w+ )?(?:a |your )?(?:\w+ ){0,3}message\b|\bafter the (?:tone|beep)\b|\bvoice ?mail\b|\bmailbox\b|"
    r"\b(?:i|we)(?:'m| am| are|'re)? (?:can't|cannot|can not|unable to|not able to|couldn't) (?:\w+ )?(?:take|answer|attend|come to) (?:your |the |this )?(?:call|phone)\b|"
    r"\bsandesh\b.*\bchh?od|\bsandesh record|बीप के बाद|संदेश (?:छोड़|छोड|रिकॉर्ड)|वॉइस ?मेल|वॉयस ?मेल|मैसेज (?:छोड़|रिकॉर्ड)",
    re.IGNORECASE,
)
# Only the agent promised something, and the customer decided nothing: "I'm driving." "I'll call you this evening."
_AGENT_PROMISES = re.compile(
    rf"\b(?:i|we)(?:'ll| will| shall) (?:call|ring|phone|contact) (?:you )?{_TIME}\b", re.IGNORECASE
)

_COMPILED = tuple(
    (rule.outcome, re.compile(rule.pattern, re.IGNORECASE), re.compile(rule.unless, re.IGNORECASE)) for rule in _RULES
)
_FINAL = (DO_NOT_CALL, WRONG_NUMBER)
"""These outcomes stand, whatever else is said."""

_CLAUSES = re.compile(r"[.,;:!?।]+|\b(?:but|lekin|par|magar)\b|लेकिन|मगर|\bso\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OutcomeMatch:
    """The outcome, and the turn that shows it. None if no turn does."""

    outcome: str
    evidence: SpokenTurn | None = None


def classify_outcome(turns: tuple[SpokenTurn, ...]) -> OutcomeMatch:
    """The outcome of the call. A recording without roles is read as if the customer had said everything."""
    for turn in turns:
        if turn.role != "agent" and _VOICEMAIL.search(turn.content.replace("’", "'")):
            return OutcomeMatch(VOICEMAIL, turn)
    people, machines = announcements.without(turns)
    others = [turn for turn in people if turn.role != "agent"]
    if not others:
        return OutcomeMatch(NO_CONVERSATION, machines[0] if machines else None)

    said = [OutcomeMatch(outcome, turn) for turn in others for outcome in _outcomes_of(turn.content)]
    for finding in said:
        if finding.outcome in _FINAL:
            return finding
    if said:
        # "Sounds good, but call me tomorrow" is a callback. "call me ... no, I'm not interested" is not.
        last = said[-1]
        callbacks = [finding for finding in said if finding.outcome == CALLBACK]
        return callbacks[-1] if callbacks and last.outcome != NOT_INTERESTED else last
    if machines and not _is_conversation(people, others):
        return OutcomeMatch(NO_CONVERSATION, machines[0])
    for turn in people:
        if turn.role == "agent" and _AGENT_PROMISES.search(turn.content):
            return OutcomeMatch(CALLBACK, turn)
    return OutcomeMatch(CONNECTED)


def _is_conversation(people: tuple[SpokenTurn, ...], others: list[SpokenTurn]) -> bool:
    """Whether people talked: more than a "hello?" to a machine, and on both sides if the sides are known."""
    words = sum(len(turn.content.split()) for turn in others)
    if any(turn.role == "unknown" for turn in others):
        return words >= _WORDS_OF_TWO
    return words >= _WORDS_OF_ONE and any(turn.role == "agent" for turn in people)


_WORDS_OF_ONE, _WORDS_OF_TWO = 4, 12


def _outcomes_of(content: str) -> list[str]:
    text = content.replace("’", "'").replace("-", " ").lower()
    found = []
    for clause in _CLAUSES.split(text):
        for outcome, pattern, unless in _COMPILED:
            if pattern.search(clause) and not unless.search(clause):
                found.append(outcome)
                break
    return found


class RulesSummarizer:
    """Makes the digest without a language model."""

    name = "rules"

    async def digest(self, turns: tuple[SpokenTurn, ...], *, language: str | None, duration: float) -> Digest:
        finding = classify_outcome(turns)
        return Digest(summarize(turns, finding, duration), finding.outcome)

    async def aclose(self) -> None:
        """There is nothing to close."""


def silent(duration: float) -> Digest:
    """The digest of a recording without sound. `duration` is in seconds."""
    return Digest(f"The recording is silent: in {_seconds(duration)} there is no sound in it.", NO_CONVERSATION)


_SPEAKERS: dict[Role, str] = {"agent": "the agent", "customer": "the customer", "unknown": "somebody"}


def summarize(turns: tuple[SpokenTurn, ...], finding: OutcomeMatch, duration: float) -> str:
    """Who spoke for how long, the outcome, and the words that show it. Facts, no interpretation."""
    spoken = {role: sum(turn.end - turn.start for turn in turns if turn.role == role) for role in _SPEAKERS}
    shares = [f"{_SPEAKERS[role]} spoke for {_seconds(time)}" for role, time in spoken.items() if time > 0]
    if not shares:
        return f"The call was answered and lasted {_seconds(duration)}, but nobody spoke."
    parts = [f"In a call of {_seconds(duration)} {' and '.join(shares)}.", f"Outcome: {finding.outcome}."]
    quoted = finding.evidence or _last_of_substance(turns)
    if quoted is not None:
        parts.append(f"{_SPEAKERS[quoted.role].capitalize()} said: “{_shortened(quoted.content)}”")
    return " ".join(parts)


def _last_of_substance(turns: tuple[SpokenTurn, ...]) -> SpokenTurn | None:
    """The last turn that says more than a greeting, and is not the agent's."""
    return next((turn for turn in reversed(turns) if turn.role != "agent" and len(turn.content.split()) >= 4), None)


def _seconds(time: float) -> str:
    whole = max(1, round(time))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _shortened(text: str, longest: int = 240) -> str:
    return text if len(text) <= longest else text[:longest].rsplit(" ", 1)[0] + " …"
