"""What of a recording is kept: the talk, whole, and not what lies before or after it."""

import io
import wave

from app.telephony.asterisk.wav import frames_before_the_talk, frames_of_the_talk, wav_header
from app.telephony.base import Talk

RATE = 8000


def kept(recorded: float, talk: Talk | None) -> tuple[float, float]:
    """Seconds that are skipped and kept of a recording."""
    frames = round(recorded * RATE)
    skipped = frames_before_the_talk(frames, talk)
    return skipped / RATE, frames_of_the_talk(frames - skipped, talk) / RATE


def test_what_the_agent_says_after_the_customer_left_is_not_kept() -> None:
    assert kept(3 + 10 + 5, Talk(3.0, 10.0)) == (3.0, 10.2)


def test_the_talk_is_kept_whole() -> None:
    assert kept(3 + 10, Talk(3.0, 10.0)) == (3.0, 10.0)
    assert kept(8, Talk(3.0, 10.0)) == (0.0, 8.0)  # the telephones sent nothing for a while
    assert kept(12, Talk(3.0, 10.0)) == (2.0, 10.0)


def test_without_its_times_all_is_kept() -> None:
    assert kept(18, None) == (0.0, 18.0)


def test_the_header_says_what_follows() -> None:
    with wave.open(io.BytesIO(wav_header(RATE) + bytes(4 * RATE))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (2, 2, RATE, RATE)
