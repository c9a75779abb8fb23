"""Cuts channels into pieces for engines that take only short audio, and whose times are coarse. Pure, apart from the
VAD."""

from dataclasses import dataclass

from app.transcription.base import SAMPLE_RATE, Samples
from app.transcription.turns import PAUSE_SECONDS
from app.transcription.vad import detect_speech

_BREATH_SECONDS = 3.0
"""The longest pause in a piece while nobody else speaks."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech of one channel, as a range of its samples."""

    channel: int
    first: int
    last: int


def cut_into_pieces(channels: tuple[Samples, ...], *, longest_seconds: float) -> list[Piece]:
    """The speech of every channel, in time order, in pieces of at most `longest_seconds`. None of silence.

    A piece ends where the same person pauses, and the other one speaks or the pause is long. So the order of the turns
    stays right even if the engine gives one time for a whole piece.
    """
    speech = [detect_speech(channel) for channel in channels]
    longest = int(longest_seconds * SAMPLE_RATE)
    pieces = [
        Piece(index, first, last)
        for index, spans in enumerate(speech)
        for first, last in _joined(spans, [span for other in speech if other is not spans for span in other], longest)
    ]
    return sorted(pieces, key=lambda piece: (piece.first, piece.channel))


def _joined(spans: list[tuple[int, int]], others: list[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined:
            begun, until = joined[-1]
            pause = (first - until) / SAMPLE_RATE
            is_alone = not any(begin < first and end > until for begin, end in others)
            if last - begun <= longest and pause < (_BREATH_SECONDS if is_alone else PAUSE_SECONDS):
                joined[-1] = (begun, last)
                continue
        joined += [(start, min(start + longest, last)) for start in range(first, last, longest)]
    return joined
