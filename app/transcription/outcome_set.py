"""The outcomes and fields that a user chose: the default set, the detailed one, or names of the user's own.

Own outcomes are found by their examples: the customer's words, with the agent's before them, are compared with each as
sentence embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.transcription.base import SpokenTurn
from app.transcription.embedding import embed
from app.transcription.outcome import CONNECTED, NO_CONVERSATION, VOICEMAIL, OutcomeMatch, find_by_rules
from app.transcription.romanize import gloss

MOST_OUTCOMES, MOST_EXAMPLES, MOST_FIELDS, LONGEST = 30, 20, 20, 200
"""Limits of a set. `LONGEST` is in characters, of a name, a description or an example."""
_SIMILAR = 0.45
"""The least cosine similarity of a turn that is like an example."""
_DESCRIBED = 0.9
"""How much a description counts, compared with an example."""
_TURNS = 12


@dataclass(frozen=True, slots=True)
class OwnOutcome:
    """An outcome of the user's. `default`: it is answered where none fits, instead of `Connected`."""

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()
    default: bool = False


@dataclass(frozen=True, slots=True)
class OwnField:
    """What a chat endpoint shall find in the call, such as `amount promised`."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeSet:
    """What one user wants to know of a call. Empty: the default set. `detailed`: with `outcome.DETAILS`."""

    detailed: bool = False
    outcomes: tuple[OwnOutcome, ...] = ()
    fields: tuple[OwnField, ...] = ()

    @property
    def fallback(self) -> str:
        """The outcome where none of the user's own fits."""
        return next((outcome.name for outcome in self.outcomes if outcome.default), CONNECTED)

    def answered(self, found: OutcomeMatch) -> str:
        """What a match of the default set is called in this set."""
        return found.detail if self.detailed and found.detail is not None else found.outcome


DEFAULT = OutcomeSet()


def classify_own(turns: tuple[SpokenTurn, ...], wanted: OutcomeSet) -> OutcomeMatch:
    """The user's own outcome that is most like what was said. A mailbox and an empty line keep their names.

    `certainty` is the cosine similarity to the nearest example. Raises `TranscriptionError` if the sentence model is
    missing.
    """
    decided = find_by_rules(turns)
    if decided is not None and decided.outcome in (VOICEMAIL, NO_CONVERSATION):
        return decided
    said = _said(turns)
    best = OutcomeMatch(wanted.fallback, None, 0.0)
    if not said:
        return best
    vectors = embed([text for texts, _ in said for text in texts])
    for outcome in wanted.outcomes:
        examples = embed([gloss(text) for text in (*outcome.examples, outcome.description or outcome.name)])
        likeness = vectors @ examples.T
        likeness[:, -1] *= _DESCRIBED
        place = int(likeness.max(axis=1).argmax())
        nearest = round(float(likeness[place].max()), 3)
        if nearest >= _SIMILAR and nearest > best.certainty:
            best = OutcomeMatch(outcome.name, said[place // 2][1], nearest)
    return best


def _said(turns: Sequence[SpokenTurn]) -> list[tuple[tuple[str, str], SpokenTurn]]:
    """The newest turns of the customer: alone, and with the agent's words before them."""
    found: list[tuple[tuple[str, str], SpokenTurn]] = []
    question = ""
    for turn in turns:
        if turn.role == "agent":
            question = turn.content
            continue
        answer = gloss(turn.content)
        found.append(((answer, f"{gloss(question)} {answer}".strip()), turn))
        question = ""
    return found[-_TURNS:]
