"""Decodes a recording, whatever its format, into channels of 16 kHz samples."""

from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from app.transcription.base import SAMPLE_RATE, Audio, TranscriptionError

_LONGEST_SECONDS = 6 * 3600
_LAYOUTS = {1: "mono", 2: "stereo"}


def load(path: Path) -> Audio:
    """The recording's audio. WAV, FLAC, Ogg, MP3 and whatever else FFmpeg reads; one or two channels.

    Raises `TranscriptionError` for a file that is empty, broken, too long or has more channels.
    """
    try:
        audio = _decode(path)
    except (FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error  # their own text names a path of this machine
        raise TranscriptionError(
            f"The recording cannot be decoded ({why}). Check that the telephony provider's file is whole"
        ) from error
    if audio.duration == 0:
        raise TranscriptionError("The recording is empty")
    return audio


def _decode(path: Path) -> Audio:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise TranscriptionError("The recording has no audio in it")
        stream = container.streams.audio[0]
        channels = stream.codec_context.channels
        if channels not in _LAYOUTS:
            raise TranscriptionError(f"The recording has {channels} channels; one or two can be transcribed")
        resampler = av.AudioResampler(format="fltp", layout=_LAYOUTS[channels], rate=SAMPLE_RATE)
        pieces = [np.zeros((channels, 0), np.float32)]
        length = 0
        for frame in chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for resampled in resampler.resample(frame):
                pieces.append(np.asarray(resampled.to_ndarray(), np.float32))
                length += resampled.samples
            if length > _LONGEST_SECONDS * SAMPLE_RATE:
                raise TranscriptionError(f"The recording is longer than {_LONGEST_SECONDS // 3600} hours")
    return Audio(tuple(np.concatenate(pieces, axis=1)))
