"""The speech port: channels of a recording go in, words with times come out.

A recognizer only knows audio and words. Speakers, turns, summary and outcome are made elsewhere: see `turns` and
`outcome`.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from app.transcription.outcome_set import OutcomeSet

Role = Literal["agent", "customer", "unknown"]

Samples = npt.NDArray[np.int16]
"""One channel, mono, 16 kHz. It may be a view of a file, so take slices and do not copy it."""

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded recording."""

    channels: tuple[Samples, ...]
    roles: tuple[Role, ...] = ("agent", "customer")
    """Who speaks on each channel. `unknown` if that cannot be known."""
    notes: tuple[str, ...] = ()
    """For the call's history: what could not be read, and what was left out."""
    level: float = 0.0
    """The level of the loudest 10 ms, in dB of full scale."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return max((len(channel) for channel in self.channels), default=0) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a piece of text if the engine gives no words. Times are seconds from the start of the recording."""

    text: str
    """With the space before it, unless it belongs to the word before: " 8", ".5", "%"."""
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """What is known of a recording before it is recognized."""

    languages: tuple[str, ...] = ()
    """ISO 639-1. Two if both are spoken in one sentence: `("hi", "en")` is Hinglish. None: to be detected, once, from
    all speech."""
    vocabulary: tuple[str, ...] = ()
    """Names and terms that may be said, for engines that can prefer them."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was said on each channel of an `Audio`, in its order. `language` is ISO 639-1, or None in silence."""

    channels: tuple[tuple[Word, ...], ...]
    language: str | None
    warning: str | None = None
    """Why the words may be wrong, as the beginning of a summary."""
    notes: tuple[str, ...] = ()
    """For the call's history."""


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """What one person says without a break. Times are seconds from the start of the recording, which is the answer."""

    role: Role
    content: str
    start: float
    end: float
    spoken: float | None = field(default=None, compare=False, repr=False)
    """The seconds without pauses, if they are known."""

    @property
    def spoken_seconds(self) -> float:
        """How long the person spoke."""
        return self.end - self.start if self.spoken is None else self.spoken


@dataclass(frozen=True, slots=True)
class Digest:
    """A transcript in short: a text for people, and one of `outcome.OUTCOMES` to sort by, or of the user's own set."""

    summary: str
    outcome: str
    certainty: float | None = None
    """How sure the outcome is, 0 to 1. None if whatever chose it does not say."""
    detail: str | None = None
    """A finer outcome, one of `outcome.DETAILS`."""
    fields: dict[str, str | None] | None = None
    """The user's own fields, by name. None for one that the call does not tell."""


@dataclass(frozen=True, slots=True)
class Transcription:
    """Everything that was made of one recording. `language` is ISO 639-1, or None in silence. `duration` is in
    seconds."""

    turns: tuple[SpokenTurn, ...]
    digest: Digest
    language: str | None
    duration: float
    notes: tuple[str, ...] = ()
    """For the call's history."""


class TranscriptionError(Exception):
    """No transcript could be made. The text tells a person why, and what to do.

    `retryable`: the same recording may succeed later, as when an endpoint was down. Otherwise somebody must help, as
    with a corrupt file or a missing model.
    """

    def __init__(self, reason: str, *, retryable: bool = False, notes: tuple[str, ...] = ()) -> None:
        """`notes` are for the call's history."""
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.notes = notes


class Recognizer(Protocol):
    """The port. `name` includes the model. It is saved with the transcript, to show what made it."""

    name: str

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Recognize each channel alone.

        Raises `TranscriptionError`, also if the engine makes no usable text of the language that is spoken.
        """

    async def aclose(self) -> None:
        """Release the model or the connections."""


class Summarizer(Protocol):
    """Makes the digest of a call from its turns."""

    name: str

    async def digest(
        self, turns: tuple[SpokenTurn, ...], *, language: str | None, duration: float, wanted: "OutcomeSet"
    ) -> Digest:
        """The digest, with the outcomes and fields that the call's user wants. Never raises. An adapter that can fail
        falls back to the classifier."""

    async def aclose(self) -> None:
        """Release connections."""
