"""Whose voice it is that was recorded."""

import numpy as np
import soundfile

from lab.phones import Phones

_RATE = 8000


def voice(phones: Phones, side: str) -> np.ndarray:
    """What a telephone of this side ("agent" or "customer") says, 8 kHz."""
    samples, _ = soundfile.read(
        phones.folder / f"{side}.alaw", format="RAW", subtype="ALAW", samplerate=_RATE, channels=1
    )
    return np.asarray(samples)


def likeness(recorded: np.ndarray, source: np.ndarray) -> float:
    """How like a voice what was recorded is: 1 is the same, 0 another.

    The median over its seconds of speech of the best normalized correlation with any part of the source. A telephone
    that sends a packet late on a busy machine shifts what follows, and costs one second so, and not all.
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
