"""Packs what was spoken on a channel into windows for Whisper, and finds its words again.

Whisper pads whatever it gets to 30 s, and most of its cost is one pass over that. So utterances share a window, with
silence between, as long as they fit. Each word belongs to the utterance in which its middle lies. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.transcription.base import SAMPLE_RATE, Samples, Word
from app.transcription.vad import LONGEST_SECONDS, as_float, detect_speech

GAP_SECONDS = 0.6
"""The silence between two utterances. With less, words run into each other; with 1.2 s it costs a third more."""

JOIN_SECONDS = 1.0
"""Pieces with a shorter pause between are one utterance, which is recognized as it was spoken."""

_GAP = round(GAP_SECONDS * SAMPLE_RATE)
_LONGEST = LONGEST_SECONDS * SAMPLE_RATE

Utterance = tuple[int, int]
"""A range of samples in which one person speaks without a long pause."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An utterance in a window. All in samples."""

    first: int
    """Where it begins on the channel."""
    length: int
    offset: int
    """Where it begins in the window."""


@dataclass(frozen=True, slots=True)
class Window:
    """Utterances of one channel, one after the other, of at most `LONGEST_SECONDS` together."""

    utterances: tuple[Placed, ...]

    @property
    def seconds(self) -> float:
        """How long somebody speaks in it."""
        return sum(placed.length for placed in self.utterances) / SAMPLE_RATE

    def sound(self, channel: Samples) -> npt.NDArray[np.float32]:
        """What Whisper gets: 16 kHz, between -1 and 1."""
        last = self.utterances[-1]
        window = np.zeros(last.offset + last.length, np.float32)
        for placed in self.utterances:
            window[placed.offset : placed.offset + placed.length] = as_float(
                channel[placed.first : placed.first + placed.length]
            )
        return window

    def word(self, text: str, start: float, end: float) -> Word:
        """A word of the window, with its times on the channel. Times are seconds."""
        middle = (start + end) / 2 * SAMPLE_RATE
        placed = min(self.utterances, key=lambda one: _distance(one, middle))
        shift = (placed.first - placed.offset) / SAMPLE_RATE
        first, last = placed.first / SAMPLE_RATE, (placed.first + placed.length) / SAMPLE_RATE
        begin = min(max(start + shift, first), last)
        return Word(text, begin, min(max(end + shift, begin), last))


def _distance(placed: Placed, sample: float) -> float:
    return max(placed.offset - sample, sample - placed.offset - placed.length, 0.0)


def pack(utterances: Iterable[Utterance]) -> list[Window]:
    """Windows with all utterances, in their order."""
    windows: list[list[Placed]] = []
    for first, last in utterances:
        offset = 0
        if windows:
            before = windows[-1][-1]
            offset = before.offset + before.length + _GAP
        if not windows or offset + last - first > _LONGEST:
            windows.append([])
            offset = 0
        windows[-1].append(Placed(first, last - first, offset))
    return [Window(tuple(window)) for window in windows]


def detect_utterances(channel: Samples) -> list[Utterance]:
    """Pieces with speech, joined where the pause between is short."""
    joined: list[Utterance] = []
    for first, last in detect_speech(channel):
        if joined:
            begun, until = joined[-1]
            if first - until < JOIN_SECONDS * SAMPLE_RATE and last - begun < _LONGEST:
                joined[-1] = (begun, last)
                continue
        joined.append((first, last))
    return joined
