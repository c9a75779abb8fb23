"""Log-mel features as NeMo makes them for its Conformers, in numpy.

Sources: `FilterbankFeatures` in NeMo (nemo/collections/asr/parts/preprocessing/features.py), with the parameters of
IndicConformer: windows of 25 ms every 10 ms, pre-emphasis 0.97, 512 FFT points, 80 mel bands of Slaney's scale from 0
to 8 kHz, the log of power + 2⁻²⁴, and each band normalized over the piece. Dither is only for training.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from app.transcription.base import SAMPLE_RATE, Samples
from app.transcription.vad import as_float

BANDS = 80
HOP = SAMPLE_RATE // 100
"""Samples from one frame to the next: 10 ms."""
_WINDOW = SAMPLE_RATE // 40
_FFT = 512
_EMPHASIS = np.float32(0.97)
_LOG_GUARD = np.float32(2**-24)
_DEVIATION_GUARD = np.float32(1e-5)


def log_mel(samples: Samples) -> npt.NDArray[np.float32]:
    """The features of 16 kHz audio: `BANDS` rows, and one column for each 10 ms. Audio of less than 32 ms is filled
    with silence."""
    audio = as_float(samples)
    if len(audio) <= _FFT:
        audio = np.pad(audio, (0, _FFT + 1 - len(audio)))
    emphasized = np.concatenate([audio[:1], audio[1:] - _EMPHASIS * audio[:-1]])
    padded = np.pad(emphasized, _FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * _window(), axis=1)) ** 2
    features = np.log(power @ mel_filters().T + _LOG_GUARD).T.astype(np.float32)
    mean, deviation = features.mean(axis=1, keepdims=True), features.std(axis=1, ddof=1, keepdims=True)
    return np.asarray((features - mean) / (deviation + _DEVIATION_GUARD), np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> npt.NDArray[np.float32]:
    """`BANDS` triangles over the FFT's frequencies, of one area each."""
    edges = _to_hertz(np.linspace(_to_mel(0.0), _to_mel(SAMPLE_RATE / 2), BANDS + 2))
    frequencies = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    widths = np.diff(edges)
    rising = (frequencies - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - frequencies) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None], np.float32)


@lru_cache(maxsize=1)
def _window() -> npt.NDArray[np.float32]:
    """A Hann window in the middle of the FFT's points."""
    left = (_FFT - _WINDOW) // 2
    return np.pad(np.hanning(_WINDOW), (left, _FFT - _WINDOW - left)).astype(np.float32)


# Slaney's scale: linear below 1 kHz, logarithmic above.
_LINEAR = 200 / 3
_BREAK = 1000.0
_LOG_STEP = np.log(6.4) / 27


def _to_mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < _BREAK else float(_BREAK / _LINEAR + np.log(hertz / _BREAK) / _LOG_STEP)


def _to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    first = _BREAK / _LINEAR
    return np.where(mel < first, mel * _LINEAR, _BREAK * np.exp(_LOG_STEP * (mel - first)))
