"""The summary of a call without a language model: sentences that only state what was said and for how long."""

import asyncio
from dataclasses import replace

from app.transcription.base import Digest, Role, SpokenTurn, TranscriptionError
from app.transcription.outcome import (
    CALLBACK,
    CONNECTED,
    DO_NOT_CALL,
    INTERESTED,
    NO_CONVERSATION,
    NOT_INTERESTED,
    VOICEMAIL,
    WRONG_NUMBER,
    OutcomeMatch,
    classify_outcome,
)
from app.transcription.outcome_set import DEFAULT, OutcomeSet, classify_own

_SPEAKERS: dict[Role, str] = {"agent": "the agent", "customer": "the customer", "unknown": "somebody"}

_MEANING = {
    INTERESTED: "is interested",
    NOT_INTERESTED: "is not interested",
    CALLBACK: "asked for a call at another time",
    WRONG_NUMBER: "said that this is a wrong number",
    DO_NOT_CALL: "does not want to be called again",
    "Appointment fixed": "agreed to an appointment",
    "Already has it": "is not interested and already has it",
    "Third person answered": "is not the person who was called",
    "Language barrier": "did not understand the agent's language",
    "Payment promised": "promised to pay",
}
"""What the outcome says about who answered."""

_UNSURE_BELOW = 0.6
"""Below this certainty the summary says "probably"."""
_PURPOSE_WORDS = 5


class LocalSummarizer:
    """Makes the digest by rules and the classifier, without a language model."""

    name = "classifier"

    async def digest(
        self,
        turns: tuple[SpokenTurn, ...],
        *,
        language: str | None,
        duration: float,
        wanted: OutcomeSet = DEFAULT,
    ) -> Digest:
        classified = asyncio.to_thread(_classify, turns, wanted)  # a tenth of a second, and more the first time
        try:
            finding = await classified
        except TranscriptionError as error:  # the transcript is worth more than its outcome
            return Digest(f"{summarize(turns, OutcomeMatch(CONNECTED), duration)} {error.reason}.", CONNECTED, 0.0)
        answered = replace(finding, outcome=wanted.answered(finding))
        certainty = round(finding.certainty, 3)
        return Digest(summarize(turns, answered, duration), answered.outcome, certainty, finding.detail)

    async def aclose(self) -> None:
        """There is nothing to close."""


def _classify(turns: tuple[SpokenTurn, ...], wanted: OutcomeSet) -> OutcomeMatch:
    return classify_own(turns, wanted) if wanted.outcomes else classify_outcome(turns)


def silent(duration: float) -> Digest:
    """The digest of a recording without sound. `duration` is in seconds."""
    return Digest(f"The recording is silent: in {_seconds(duration)} there is no sound in it.", NO_CONVERSATION, 1.0)


def summarize(turns: tuple[SpokenTurn, ...], finding: OutcomeMatch, duration: float) -> str:
    """What the agent called about, what the customer answered in their own words, and how long both spoke."""
    spoken = {role: sum(turn.spoken_seconds for turn in turns if turn.role == role) for role in _SPEAKERS}
    shares = [f"{_SPEAKERS[role]} spoke for {_seconds(time)}" for role, time in spoken.items() if time > 0]
    if not shares:
        return f"The call was answered and lasted {_seconds(duration)}, but nobody spoke."
    parts = [*_said(turns, finding), f"In a call of {_seconds(duration)} {' and '.join(shares)}."]
    parts += [f"{_SPEAKERS[role].capitalize()} was not heard." for role in _silent_sides(spoken)]
    parts.append(f"Outcome: {finding.outcome}.")
    return " ".join(parts)


def _silent_sides(spoken: dict[Role, float]) -> list[Role]:
    """Agent or customer, if only the other one spoke."""
    if spoken["unknown"]:
        return []
    sides: list[Role] = ["agent", "customer"]
    return [role for role in sides if not spoken[role]]


def _said(turns: tuple[SpokenTurn, ...], finding: OutcomeMatch) -> list[str]:
    quoted = finding.evidence or _last_of_substance(turns)
    parts = []
    purpose = _purpose(turns)
    if purpose is not None and purpose != quoted and finding.outcome not in (VOICEMAIL, NO_CONVERSATION):
        parts.append(f"The agent said: “{_shortened(purpose.content, 120)}”")
    meaning = _MEANING.get(finding.detail or finding.outcome)
    if quoted is None:
        return parts
    sure = "" if finding.certainty >= _UNSURE_BELOW else "probably "
    how = "said" if meaning is None else f"{sure}{meaning}"
    parts.append(f"{_SPEAKERS[quoted.role].capitalize()} {how}: “{_shortened(quoted.content)}”")
    agreed = _agreed(turns, quoted)
    if agreed is not None:
        parts.append(f"The agent answered: “{_shortened(agreed.content, 120)}”")
    return parts


def _purpose(turns: tuple[SpokenTurn, ...]) -> SpokenTurn | None:
    """The agent's first turn that says more than a greeting."""
    said = (turn for turn in turns[:4] if turn.role == "agent")
    return next((turn for turn in said if len(turn.content.split()) >= _PURPOSE_WORDS), None)


def _agreed(turns: tuple[SpokenTurn, ...], quoted: SpokenTurn) -> SpokenTurn | None:
    """What the agent answered to the turn that decided, if it is more than a "thank you"."""
    following = turns[turns.index(quoted) + 1 :] if quoted in turns else ()
    answer = next((turn for turn in following if turn.role == "agent"), None)
    return answer if answer is not None and len(answer.content.split()) >= _PURPOSE_WORDS else None


def _last_of_substance(turns: tuple[SpokenTurn, ...]) -> SpokenTurn | None:
    """The last turn that says more than a greeting, and is not the agent's."""
    return next((turn for turn in reversed(turns) if turn.role != "agent" and len(turn.content.split()) >= 4), None)


def _seconds(time: float) -> str:
    whole = max(1, round(time))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _shortened(text: str, longest: int = 240) -> str:
    return text if len(text) <= longest else text[:longest].rsplit(" ", 1)[0] + " …"
