"""Detects speech. It works in blocks, so that hours of audio take no more memory than minutes."""

import numpy as np
import numpy.typing as npt

from app.transcription.base import SAMPLE_RATE, Samples

LONGEST_SECONDS = 28
"""The longest piece, in seconds. The window of the models is 30."""
_BLOCK = 300 * SAMPLE_RATE
_NOISE = 10 ** (-66 / 20)
"""The amplitude of the noise that is added for the detection only. After digital silence, as on a line that was
recorded too quietly, the VAD misses the first words."""

# Measured on telephone speech (docs/speech.md). The VAD is required: on silence, noise and ringback the models invent
# text, with high confidence.
_OPTIONS = {
    "threshold": 0.3,  # at 0.5, speech without frequencies below 300 Hz, as on many trunks, is missed
    "min_speech_duration_ms": 100,
    "min_silence_duration_ms": 400,
    "speech_pad_ms": 200,
    "max_speech_duration_s": LONGEST_SECONDS,
}


def as_float(samples: Samples) -> npt.NDArray[np.float32]:
    """Between -1 and 1."""
    return samples.astype(np.float32) / np.float32(32768)


def detect_speech(channel: Samples) -> list[tuple[int, int]]:
    """The pieces with speech, in order, as ranges of samples."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps  # importing it takes 0.4 s

    options = VadOptions(**_OPTIONS)
    random = np.random.default_rng(1)
    found: list[tuple[int, int]] = []
    for start in range(0, len(channel), _BLOCK):
        block = channel[start : start + _BLOCK]
        if block.any():
            sound = as_float(block)
            sound += _NOISE * random.standard_normal(len(sound), np.float32)
            pieces = get_speech_timestamps(sound, options)
            found += [(start + int(piece["start"]), start + int(piece["end"])) for piece in pieces]
    return found
