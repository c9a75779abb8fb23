"""What two channels have in common: the same signal, or the one person's voice on the other's channel.

Decided from the signals alone. The path from one channel to the other is estimated as an impulse response over lags of
up to half a second both ways. Where what comes through this path explains all that a channel holds, it is a copy.
Pure numpy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float32]
"""One channel at `RATE`, between -1 and 1."""
Levels = npt.NDArray[np.float64]
"""Mean energy of a sample, one value a frame."""
Mask = npt.NDArray[np.bool_]
"""One value a frame of `FRAME` samples."""

RATE = 8_000
FRAME = 80
"""Samples: 10 ms."""
LAG = RATE * 55 // 100
"""Samples: the longest delay that is looked for, both ways."""
_TINY = 1e-12
_QUIETER = 10 ** (-3 / 10)
"""A copy is quieter than its source by this factor of energy or more."""
_PEAK = 9.0
"""A tap of the path stands out of the noise by this factor."""
_FAINTEST = 0.008
"""A path below this (-42 dB) is not worth following: nobody would hear it."""
_MARGIN = 10 ** (6 / 10)
"""A frame that has this factor more energy than the copy in it holds something else too."""
_EXPLAINED = 0.35
"""Normalised correlation of the expected copy with what is there, from which on it is one."""
_ALIKE = 10 ** (-6 / 10)
"""Two signals are the same if less than this share of the energy differs."""
_LOUD = 0.05
"""A frame with this share of the energy of loud frames is speech that must be on the other channel, too."""
_ACTIVE = 10 ** (-70 / 10)
"""Energy of a sample, on average, below which a frame is silence."""


def energies(signal: Signal) -> Levels:
    """Mean energy of a sample, frame by frame."""
    whole = len(signal) // FRAME * FRAME
    levels: Levels = np.square(signal[:whole], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)
    return levels


def _around(values: Levels, frames: int) -> Levels:
    """The maximum of the frames up to so many before and after."""
    padded = np.pad(values, frames)
    highest: Levels = np.lib.stride_tricks.sliding_window_view(padded, 2 * frames + 1).max(axis=1)
    return highest


def _held(mask: Mask, frames: int) -> Mask:
    """The mask, with so many frames more on both sides of every stretch."""
    return _around(mask.astype(np.float64), frames) > 0.5


@dataclass(frozen=True, slots=True)
class Path:
    """How one channel comes through on the other: taps by lag, from -LAG to +LAG samples."""

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
    """What the target gets of the source."""
    size = 1 << (len(source) + LAG - 1).bit_length()
    kernel = np.zeros(size, np.float32)
    kernel[: LAG + 1] = path.taps[LAG:]
    kernel[-LAG:] = path.taps[:LAG]
    return np.fft.irfft(np.fft.rfft(source, size) * np.fft.rfft(kernel), size)[: len(source)].astype(np.float32)


def copies(source: Signal, target: Signal, *, quieter: bool = True) -> Mask:
    """The frames of the target that hold nothing but a copy of the source.

    `quieter`: of a copy that is quieter than its source, as crosstalk and echo are. Otherwise also of one as loud, for
    a source that is known to hold nothing of the target's own.
    """
    frames = min(len(source), len(target)) // FRAME
    source, target = source[: frames * FRAME], target[: frames * FRAME]
    loud, quiet = energies(source), energies(target)
    floor = max(_ACTIVE, 4 * float(np.quantile(quiet, 0.1))) if frames else _ACTIVE
    active = quiet > floor
    own = quiet >= _QUIETER * _around(loud, LAG // FRAME) if quieter else np.zeros(frames, bool)
    found = np.zeros(frames, bool)
    for size in _WINDOWS:  # the shorter ones follow a path that changes
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
"""Frames: 32 s and 7.6 s, which with the longest lag fit into a power of two."""
_WORTH_FRAMES = 10


def _windows(frames: int, size: int) -> list[tuple[int, int]]:
    """First and last plus one of windows that overlap by a quarter."""
    step = size * 3 // 4
    return [(start, min(start + size, frames)) for start in range(0, max(1, frames - size // 4), step)]


@dataclass(frozen=True, slots=True)
class CopyShare:
    """How much of what one channel says is on the other, too, at one level."""

    spoken: int = 0
    """Frames in which the one speaks."""
    same: int = 0
    """Frames of these that the other has, too."""

    def __add__(self, more: "CopyShare") -> "CopyShare":
        return CopyShare(self.spoken + more.spoken, self.same + more.same)

    @property
    def is_all(self) -> bool:
        """Whether nothing much is missing."""
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
    """The mask without stretches of fewer frames than that."""
    kept = mask.copy()
    for first, last in stretches(mask):
        if last - first < frames:
            kept[first:last] = False
    return kept


def _explained(copy: Signal, target: Signal, mask: Mask) -> Mask:
    """Of the mask, the stretches in which the expected copy is what is there."""
    kept = np.zeros_like(mask)
    for first, last in stretches(mask):
        expected, there = copy[first * FRAME : last * FRAME], target[first * FRAME : last * FRAME]
        norm = float(np.sqrt(np.dot(expected, expected) * np.dot(there, there)))
        if norm > 0 and float(np.dot(expected, there)) / norm >= _EXPLAINED:
            kept[first:last] = True
    return kept


def stretches(mask: Mask) -> list[tuple[int, int]]:
    """First and last plus one of every run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
