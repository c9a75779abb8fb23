"""What the outcome classifier sees of a conversation: sentence embeddings, and hashed words and pieces of words.

Embeddings carry what is said in other words, in English. Hashed pieces carry romanised Hindi, and what decides by one
word. A short answer is also joined with the words of the question, because a yes means what the agent asked.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from app.transcription.base import SpokenTurn
from app.transcription.embedding import DIMENSIONS, embed
from app.transcription.romanize import gloss, words

BUCKETS = 2**14
SIZE = 3 * DIMENSIONS + BUCKETS
"""The length of a feature vector."""

_RECENT_TURNS, _RECENT_ANSWERS = 6, 3
_HASHED_LENGTH = 1.4
"""The length of the hashed part. Each embedding has length 1. Chosen by cross-validation."""
_SHORT_WORDS = 5
_QUESTION_WORDS = 12


def features(turns: Sequence[SpokenTurn]) -> npt.NDArray[np.float32]:
    """The vector of a conversation, `SIZE` numbers. A turn of nobody known is read as the customer's."""
    answers = _answers(turns)
    recent = turns[-_RECENT_TURNS:]
    texts = (
        " ".join(gloss(answer) for _, answer in answers[-_RECENT_ANSWERS:]),
        " ".join(gloss(text) for text in _weightiest(answers)),
        " ".join(f"{'agent' if turn.role == 'agent' else 'customer'}: {gloss(turn.content)}" for turn in recent),
    )
    vector = np.zeros(SIZE, np.float32)
    vector[: 3 * DIMENSIONS] = embed(list(texts)).reshape(-1)
    hashed = vector[3 * DIMENSIONS :]
    for place, (question, answer) in enumerate(reversed(answers)):
        weight = 1.0 if place < _RECENT_ANSWERS else 0.3
        for token in _pieces(question, answer):
            hashed[zlib.crc32(token.encode()) % BUCKETS] += weight
    np.log1p(hashed, out=hashed)
    length = float(np.linalg.norm(hashed))
    if length:
        hashed *= _HASHED_LENGTH / length
    return vector


def _answers(turns: Sequence[SpokenTurn]) -> list[tuple[str, str]]:
    """What the customer says, each time with the agent's words before it."""
    found, question = [], ""
    for turn in turns:
        if turn.role == "agent":
            question = turn.content
        else:
            found.append((question, turn.content))
            question = ""
    return found


def _weightiest(answers: list[tuple[str, str]]) -> tuple[str, str]:
    """The longest of the last answers, with its question: a "thank you, bye" at the end decides nothing."""
    return max(answers[-_RECENT_ANSWERS:], key=lambda pair: len(pair[1]), default=("", ""))


def _pieces(question: str, answer: str) -> Iterator[str]:
    said = words(answer)
    english = gloss(answer).split()
    bounded = ["<", *said, ">"]
    yield from (f"w {word}" for word in said)
    yield from (f"b {one} {two}" for one, two in itertools.pairwise(bounded))
    yield from (f"e {one} {two}" for one, two in itertools.pairwise(english))
    yield from (f"g {word}" for word in english)
    for word in said:
        padded = f"<{word}>"
        for size in (3, 4):
            yield from (f"c {padded[at : at + size]}" for at in range(len(padded) - size + 1))
    asked = gloss(question).split()[-_QUESTION_WORDS:]
    yield from (f"q {word}" for word in asked)
    if len(said) <= _SHORT_WORDS:
        kind = _yes_or_no(english)
        yield f"y {kind}"
        yield from (f"y {kind} {word}" for word in asked)
        yield from (f"y {kind} {one} {two}" for one, two in itertools.pairwise(asked))


_YES = {"yes", "ya", "yeah", "yep", "ok", "okay", "sure", "fine", "right", "definitely", "ji"}
_NO = {"no", "not", "nope", "nah", "na", "don't"}


def _yes_or_no(english: list[str]) -> str:
    if _NO.intersection(english):
        return "no"
    return "yes" if _YES.intersection(english) else "other"
