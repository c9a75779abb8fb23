"""What two channels have in common: the same signal, or one person's voice on the other's channel.

It is decided from the signals alone. The path from one channel to the other is estimated as an impulse response, with
lags of up to half a second both ways. If the signal through this path explains everything on a channel, that channel is
a copy. Pure numpy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float32]
"""One channel at `RATE`, between -1 and 1."""
Levels = npt.NDArray[np.float64]
"""Mean energy per sample, one value per frame."""
Mask = npt.NDArray[np.bool_]
"""One value per frame of `FRAME` samples."""

RATE = 8_000
FRAME = 80
"""Samples: 10 ms."""
LAG = RATE * 55 // 100
"""Samples: the longest delay that is searched, both ways."""
_TINY = 1e-12
_QUIETER = 10 ** (-3 / 10)
"""A copy has less energy than its source by at least this factor."""
_PEAK = 9.0
"""A tap of the path exceeds the noise by this factor."""
_FAINTEST = 0.008
"""A weaker path (-42 dB) is ignored, because nobody could hear the copy."""
_MARGIN = 10 ** (6 / 10)
"""A frame with this factor more energy than the copy in it also holds something else."""
_EXPLAINED = 0.35
"""From this normalised correlation on, the signal is the expected copy."""
_ALIKE = 10 ** (-6 / 10)
"""Two signals are the same if less than this share of the energy differs."""
_LOUD = 0.05
"""A frame with this share of the energy of loud frames is speech, which must be on the other channel, too."""
_ACTIVE = 10 ** (-70 / 10)
"""A frame with a lower mean energy per sample is silent."""


def energies(signal: Signal) -> Levels:
    """Mean energy per sample, for each frame."""
    whole = len(signal) // FRAME * FRAME
    levels: Levels = np.square(signal[:whole], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)
    return levels


def _around(values: Levels, frames: int) -> Levels:
    """The maximum over `frames` frames before and after."""
    padded = np.pad(values, frames)
    highest: Levels = np.lib.stride_tricks.sliding_window_view(padded, 2 * frames + 1).max(axis=1)
    return highest


def _held(mask: Mask, frames: int) -> Mask:
    """The mask, with each stretch extended by `frames` on both sides."""
    return _around(mask.astype(np.float64), frames) > 0.5


@dataclass(frozen=True, slots=True)
class Path:
    """How one channel sounds on the other: taps by lag, from -LAG to +LAG samples."""

    taps: Signal

    @property
    def peak(self) -> float:
        return float(np.abs(self.taps).max(initial=0))


def find_path(source: Signal, target: Signal, *, ignore: Mask | None = None) -> Path | None:
    """The path from the source to the target, or None. `ignore`: frames of the target that are its own speech."""
    usable = target.copy()
    if ignore is not None:
        usable[: len(ignore) * FRAME][np.repeat(ignore, FRAME)] = 0
    size = 1 << (len(source) + LAG - 1).bit_length()
    spectrum = np.fft.rfft(source, size)
    cross = np.conj(spectrum) * np.fft.rfft(usable, size)
    power = _smooth(np.square(np.abs(spectrum)), max(1, size * 60 // RATE))
    response = np.fft.irfft(cross / (power + 0.02 * power.mean() + _TINY), size)
    taps = np.concatenate([response[-LAG:], response[: LAG + 1]]).astype(np.float32)
    noise = float(np.median(np.abs(taps))) / 0.6745
    height = np.abs(taps)
    if height.max() < _PEAK * noise or height.max() < _FAINTEST:
        return None
    around = np.abs(np.arange(len(taps)) - height.argmax()) <= RATE // 250  # the rest of the pulse
    return Path(np.where((height >= _PEAK * noise) | (around & (height >= 3 * noise)), taps, 0))


def _smooth(values: Levels, width: int) -> Levels:
    sums = np.cumsum(np.pad(values, (width // 2 + 1, width - width // 2 - 1), mode="edge"))
    return (sums[width:] - sums[:-width]) / width


def through(path: Path, source: Signal) -> Signal:
    """The part of the source that reaches the target."""
    size = 1 << (len(source) + LAG - 1).bit_length()
    kernel = np.zeros(size, np.float32)
    kernel[: LAG + 1] = path.taps[LAG:]
    kernel[-LAG:] = path.taps[:LAG]
    return np.fft.irfft(np.fft.rfft(source, size) * np.fft.rfft(kernel), size)[: len(source)].astype(np.float32)


def copies(source: Signal, target: Signal, *, quieter: bool = True) -> Mask:
    """The frames of the target that hold only a copy of the source.

    `quieter`: the copy is quieter than its source, as crosstalk and echo are. Otherwise a copy as loud as the source
    counts, too, for a source without speech of the target.
    """
    frames = min(len(source), len(target)) // FRAME
    source, target = source[: frames * FRAME], target[: frames * FRAME]
    loud, quiet = energies(source), energies(target)
    floor = max(_ACTIVE, 4 * float(np.quantile(quiet, 0.1))) if frames else _ACTIVE
    active = quiet > floor
    own = quiet >= _QUIETER * _around(loud, LAG // FRAME) if quieter else np.zeros(frames, bool)
    found = np.zeros(frames, bool)
    for size in _WINDOWS:  # the shorter windows follow a path that changes
        for first, last in _windows(frames, size):
            here = slice(first, last)
            if np.count_nonzero(active[here] & ~own[here] & ~found[here]) < _WORTH_FRAMES:
                continue
            part = slice(first * FRAME, last * FRAME)
            path = find_path(source[part], target[part], ignore=own[here])
            if path is None:
                continue
            copy = through(path, source[part])
            expected = _around(energies(copy), 3)
            more = (quiet[here] > _MARGIN * expected) & active[here]
            more = _held(_without_short(more, 4), 12)
            found[here] |= _explained(copy, target[part], (expected > _TINY) & ~more)
    return found


_WINDOWS = (3200, 760)
"""Frames: 32 s and 7.6 s. With the longest lag, they fit into a power of two."""
_WORTH_FRAMES = 10


def _windows(frames: int, size: int) -> list[tuple[int, int]]:
    """Ranges of windows that overlap by a quarter."""
    step = size * 3 // 4
    return [(start, min(start + size, frames)) for start in range(0, max(1, frames - size // 4), step)]


@dataclass(frozen=True, slots=True)
class CopyShare:
    """How much of the speech on one channel is also on the other, at one level."""

    spoken: int = 0
    """Frames in which the source speaks."""
    same: int = 0
    """How many of these frames are also on the target."""

    def __add__(self, more: "CopyShare") -> "CopyShare":
        return CopyShare(self.spoken + more.spoken, self.same + more.same)

    @property
    def is_all(self) -> bool:
        """Whether almost everything is on the target."""
        return self.spoken >= _WORTH_FRAMES and self.same >= 0.85 * self.spoken


def share(source: Signal, target: Signal) -> CopyShare:
    """How much of the source is on the target."""
    frames = min(len(source), len(target)) // FRAME
    found = CopyShare()
    for first, last in _windows(frames, _WINDOWS[0]):
        said, there = source[first * FRAME : last * FRAME], target[first * FRAME : last * FRAME]
        loud = energies(said)
        spoken = int(np.count_nonzero(loud > max(_ACTIVE, _LOUD * float(np.quantile(loud, 0.98)))))
        if spoken < _WORTH_FRAMES:
            continue
        path = find_path(said, there)
        same = 0
        if path is not None:
            copy = through(path, said)
            copy *= np.dot(copy, there) / (np.dot(copy, copy) + _TINY)
            level = energies(copy)
            due = level > _LOUD * float(np.quantile(level, 0.98))
            same = int(np.count_nonzero(due & (energies(there - copy) < _ALIKE * energies(there))))
        found += CopyShare(spoken, min(spoken, same))
    return found


def _without_short(mask: Mask, frames: int) -> Mask:
    """The mask without stretches that are shorter than `frames`."""
    kept = mask.copy()
    for first, last in stretches(mask):
        if last - first < frames:
            kept[first:last] = False
    return kept


def _explained(copy: Signal, target: Signal, mask: Mask) -> Mask:
    """The stretches of the mask in which the signal is the expected copy."""
    kept = np.zeros_like(mask)
    for first, last in stretches(mask):
        expected, there = copy[first * FRAME : last * FRAME], target[first * FRAME : last * FRAME]
        norm = float(np.sqrt(np.dot(expected, expected) * np.dot(there, there)))
        if norm > 0 and float(np.dot(expected, there)) / norm >= _EXPLAINED:
            kept[first:last] = True
    return kept


def stretches(mask: Mask) -> list[tuple[int, int]]:
    """The ranges of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
