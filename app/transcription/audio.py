"""Decodes a recording, whatever its format, into channels of 16 kHz samples."""

from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from faster_whisper.audio import decode_audio

from app.transcription.base import SAMPLE_RATE, Audio, TranscriptionError

_LONGEST_SECONDS = 6 * 3600


def load(path: Path) -> Audio:
    """The recording's audio. WAV, FLAC, Ogg, MP3 and whatever else FFmpeg reads; one or two channels.

    Raises `TranscriptionError` for a file that is empty, broken, too long or has more channels.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise TranscriptionError("The recording has no audio in it")
            channels = container.streams.audio[0].codec_context.channels
        if channels not in (1, 2):
            raise TranscriptionError(f"The recording has {channels} channels; one or two can be transcribed")
        decoded = decode_audio(str(path), SAMPLE_RATE, split_stereo=channels == 2)
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise TranscriptionError(
            f"The recording cannot be decoded ({error}). Check that the telephony provider's file is whole"
        ) from error
    sides = decoded if isinstance(decoded, tuple) else (decoded,)
    audio = Audio(tuple(np.ascontiguousarray(side, dtype=np.float32) for side in sides))
    if audio.duration == 0:
        raise TranscriptionError("The recording is empty")
    if audio.duration > _LONGEST_SECONDS:
        raise TranscriptionError(f"The recording is longer than {_LONGEST_SECONDS // 3600} hours")
    return audio
