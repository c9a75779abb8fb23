"""The speech port: a recording's channels go in, timed words come out.

A recognizer knows audio and words. Who speaks on which channel, turns, summary and outcome are not its
business: see `turns` and `outcome`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Role = Literal["agent", "customer", "unknown"]

Samples = npt.NDArray[np.int16]
"""One channel, mono, 16 kHz. It may be a view of a file: take slices, do not copy all of it."""

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded recording."""

    channels: tuple[Samples, ...]
    roles: tuple[Role, ...] = ("agent", "customer")
    """Who speaks on each channel; `unknown` where nobody can say."""
    notes: tuple[str, ...] = ()
    """For the call's history: what could not be read, and what was left out."""
    level: float = 0.0
    """Of the loudest 10 ms, in dB of full scale."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return max((len(channel) for channel in self.channels), default=0) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a piece of text where the engine tells no words, with seconds from the recording's start."""

    text: str
    """With the space before it, if it does not belong to the word before: " 8", ".5", "%"."""
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was said on each channel of an `Audio`, in its order. `language` is ISO 639-1, None in silence."""

    channels: tuple[tuple[Word, ...], ...]
    language: str | None


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """One speaker's uninterrupted say, with seconds from the recording's start, which is the answer."""

    role: Role
    content: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Digest:
    """A transcript in short: for a person to read, and one of `outcome.OUTCOMES` to sort by."""

    summary: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Transcription:
    """All that was made of one recording. `language` is ISO 639-1, None in silence; `duration` is seconds."""

    turns: tuple[SpokenTurn, ...]
    digest: Digest
    language: str | None
    duration: float
    notes: tuple[str, ...] = ()
    """For the call's history."""


class TranscriptionError(Exception):
    """No transcript could be made. The text tells a person why and what to do.

    `retryable` says whether the same recording may succeed later (an endpoint that was down) or never will
    without somebody's help (a corrupt file, a missing model).
    """

    def __init__(self, reason: str, *, retryable: bool = False, notes: tuple[str, ...] = ()) -> None:
        """`notes`: for the call's history."""
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.notes = notes


class Recognizer(Protocol):
    """The port. `name` and the model go into the transcript's record, so that it can be told what made it."""

    name: str

    async def recognize(self, audio: Audio, language: str | None) -> Recognition:
        """Recognize each channel alone. `language`: ISO 639-1, or None to detect it once from all speech.

        Raises `TranscriptionError`.
        """

    async def aclose(self) -> None:
        """Release the model or connections."""


class Summarizer(Protocol):
    """Makes the digest of a call from its turns."""

    name: str

    async def digest(self, turns: tuple[SpokenTurn, ...], *, language: str | None, duration: float) -> Digest:
        """Never raises: an adapter that can fail falls back to the rules."""

    async def aclose(self) -> None:
        """Release connections."""
