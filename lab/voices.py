"""Decides whose voice was recorded."""

import numpy as np
import soundfile

from lab.phones import Phones

_RATE = 8000


def voice(phones: Phones, side: str) -> np.ndarray:
    """What a telephone of this side ("agent" or "customer") plays, at 8 kHz."""
    samples, _ = soundfile.read(
        phones.folder / f"{side}.alaw", format="RAW", subtype="ALAW", samplerate=_RATE, channels=1
    )
    return np.asarray(samples)


def likeness(recorded: np.ndarray, source: np.ndarray) -> float:
    """How much a recording resembles a voice. 1 is the same voice, 0 another one.

    The result is the median over the seconds of speech of the best normalized correlation with any part of the source.
    On a busy machine a telephone may send a packet late, which shifts the rest. That costs one second only.
    """
    seconds = [recorded[start : start + _RATE] for start in range(0, len(recorded) - _RATE + 1, _RATE)]
    loudest = max((float(np.linalg.norm(second)) for second in seconds), default=0.0)
    spoken = [second for second in seconds if np.linalg.norm(second) > loudest / 4]
    return float(np.median([_correlation(second, source) for second in spoken])) if loudest else 0.0


def _correlation(part: np.ndarray, source: np.ndarray) -> float:
    size = len(part) + len(source)
    matches = np.fft.irfft(np.fft.rfft(source, size) * np.conj(np.fft.rfft(part, size)), size)
    shift = int(np.argmax(matches[: len(source) - len(part)]))
    match = source[shift : shift + len(part)]
    return float(np.dot(part, match) / (np.linalg.norm(part) * np.linalg.norm(match) + 1e-9))
