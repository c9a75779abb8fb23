"""Decoded samples on a common time axis, in unnamed files, so that hours of audio fit."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import av
import numpy as np
import numpy.typing as npt

from app.transcription.base import SAMPLE_RATE
from app.transcription.decoding.parts import LONGEST_SECONDS, NoRoom, TooLong, check_length

Block = npt.NDArray[np.float32]
"""Channels x samples, finite, between -1 and 1."""
Stored = npt.NDArray[np.int16]
"""Samples x channels."""

MOST_TRACKS = 8
_MOST_CHANNEL_SECONDS = 2 * LONGEST_SECONDS
GAP_SECONDS = 0.06
"""A timestamp this far ahead of the decoded audio leaves silence in between."""


@dataclass(slots=True)
class Bank:
    """The part of a track that has this number of channels. The rest is silence here."""

    channels: int
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    length: int = 0
    """Samples of one channel."""
    written: int = 0
    """How many of them are not a gap."""

    def write(self, at: int, samples: Stored) -> None:
        self.length = max(self.length, at + len(samples))
        self.written += len(samples)
        if samples.any():  # silence is a hole in the file, which takes no room on the disk
            self.file.seek(at * self.channels * 2)
            self.file.write(np.ascontiguousarray(samples, "<i2").tobytes())

    def samples(self) -> Stored:
        """All samples, read from the file as they are used, even after the file is closed."""
        if not self.length:
            return np.zeros((0, self.channels), np.int16)
        self.file.truncate(self.length * self.channels * 2)
        self.file.flush()
        return np.memmap(self.file, np.dtype("<i2"), "r", shape=(self.length, self.channels))


class Track:
    """One stream of a file, resampled to 16 kHz per channel. Channels are never mixed."""

    def __init__(self) -> None:
        self.banks: dict[int, Bank] = {}
        self.position = 0
        """How many samples at 16 kHz are written."""
        self.lost = 0.0
        """How many seconds could not be decoded."""
        self.decoded = 0.0
        """How many seconds were decoded."""
        self._shape = (0, 0)
        self._waiting: list[Block] = []
        self._waiting_samples = 0
        self._resamplers: list[av.AudioResampler] = []

    @property
    def seconds(self) -> float:
        """The time of the next sample."""
        rate = self._shape[1]
        return self.position / SAMPLE_RATE + (self._waiting_samples / rate if rate else 0)

    def write(self, block: Block, rate: int, at: float | None) -> None:
        """Append samples of the time `at`, in seconds. None: right after the last sample.

        Raises `TooLong`.
        """
        if at is not None and at > self.seconds + GAP_SECONDS:
            self.skip(at - self.seconds)
        shape = (len(block), rate)
        if shape != self._shape:
            self.finish()
            self._shape = shape
            self._resamplers = [av.AudioResampler("fltp", "mono", SAMPLE_RATE) for _ in block]
        self._waiting.append(block)
        self._waiting_samples += block.shape[1]
        self.decoded += block.shape[1] / rate
        if self._waiting_samples >= rate / 2:
            self._write_waiting()

    def skip(self, seconds: float) -> None:
        """Append silence."""
        self.finish()
        check_length(self.position / SAMPLE_RATE + seconds)
        self.position += round(seconds * SAMPLE_RATE)

    def finish(self) -> None:
        """Write what is still buffered."""
        self._write_waiting()
        if self._resamplers:
            self._store([list(_resampled(resampler, None)) for resampler in self._resamplers])
        self._resamplers, self._shape = [], (0, 0)

    def close(self) -> None:
        """Close the files."""
        for bank in self.banks.values():
            bank.file.close()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        block = np.concatenate(self._waiting, axis=1)
        self._waiting, self._waiting_samples = [], 0
        rate, pieces = self._shape[1], []
        for channel, resampler in zip(block, self._resamplers, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channel[None]), "fltp", "mono")
            frame.sample_rate = rate
            pieces.append(list(_resampled(resampler, frame)))
        self._store(pieces)

    def _store(self, pieces: list[list[Block]]) -> None:
        channels = [np.concatenate([block[0] for block in blocks]) for blocks in pieces if blocks]
        if not channels:
            return
        samples = np.stack(channels, axis=1)
        end = self.position + len(samples)
        check_length(end / SAMPLE_RATE)
        counts = {*self.banks, len(channels)}
        if end * sum(counts) > _MOST_CHANNEL_SECONDS * SAMPLE_RATE:
            raise TooLong(
                f"The recording has more than {_MOST_CHANNEL_SECONDS // 3600} hours of audio on all its channels "
                "together, which is the most that is read"
            )
        try:
            if len(channels) not in self.banks:
                self.banks[len(channels)] = Bank(len(channels))
            self.banks[len(channels)].write(self.position, np.rint(samples.clip(-1, 1) * 32767).astype(np.int16))
        except OSError as error:  # which would count as a damaged packet
            raise NoRoom(error.strerror) from error
        self.position = end


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[Block]:
    for resampled in resampler.resample(frame):
        yield resampled.to_ndarray().astype(np.float32, copy=False)


_SCALES = {"u8": 1 / 128, "s16": 1 / 2**15, "s32": 1 / 2**31, "s64": 1 / 2**63, "flt": 1.0, "dbl": 1.0}


def block_of(frame: av.AudioFrame, gain: float = 1.0) -> tuple[Block, int]:
    """The samples of the frame, whatever its loudspeaker layout, and how many are not numbers.

    What is not a number becomes 0, and what exceeds full scale becomes full scale. Raises ValueError for an unknown
    format.
    """
    channels, kind = len(frame.layout.channels), frame.format.name.removesuffix("p")
    if kind not in _SCALES:
        raise ValueError(f"samples of the format {kind}")
    samples = frame.to_ndarray()
    planar = samples if frame.format.is_planar else samples.reshape(-1, channels).T
    with np.errstate(all="ignore"):
        values = planar.astype(np.float32)
        if kind == "u8":
            values -= 128
        values *= np.float32(_SCALES[kind] * gain)
    broken = values.shape[1] - int(np.count_nonzero(np.isfinite(values).all(axis=0)))
    if broken:
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(values, -1, 1, out=values), broken
