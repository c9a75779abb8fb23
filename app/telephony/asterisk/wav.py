"""What of a recording is the talk, and the header that MixMonitor's file lacks. No I/O."""

import io
import wave

from app.telephony.base import Talk

_RATE = 8000
"""Samples per second that MixMonitor writes into a `.raw` file, without a header."""
FRAME_BYTES = 4
"""Two channels of 16 bits."""
_LEAST_TALK_SECONDS = 0.1
_END_SECONDS = 0.2
"""How much of a recording is kept after the end of the talk, because its time is that of an event."""


def frames_before_the_talk(frames: int, talk: Talk | None) -> int:
    """How many frames to skip of a recording that began when the customer was dialed. The whole talk always stays.
    While a telephone sends nothing, Asterisk may have written nothing."""
    if talk is None:
        return 0
    return max(0, min(round(talk.began * _RATE), frames - round(max(talk.lasted, _LEAST_TALK_SECONDS) * _RATE)))


def frames_of_the_talk(frames: int, talk: Talk | None) -> int:
    """How many frames to keep. When the customer has left, Asterisk records the agent until that leg is hung up."""
    if talk is None:
        return frames
    return min(frames, round((max(talk.lasted, _LEAST_TALK_SECONDS) + _END_SECONDS) * _RATE))


def wav_header(frames: int) -> bytes:
    """The header of a file with so many frames."""
    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.setnframes(frames)
        file.writeframesraw(b"")
        return header.getvalue()  # read before closing, which would write the number of frames
