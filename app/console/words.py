"""What the console calls things: statuses, events, times, lengths. Pure."""

import unicodedata
from datetime import datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from app.call_state import HANGING_UP, NOTE_KEY_PREFIX, REPORT_KEY_PREFIX
from app.models import DeliveryStatus, TranscriptStatus
from app.numbers import mask
from app.telephony.base import CUSTOMER_DIALED, CallStatus

Toned = tuple[str, str]
"""A word, and its tone: `live`, `good`, `wait`, `bad` or `quiet`. The tone is a colour and a shape beside the word."""

_STATUS: dict[CallStatus, Toned] = {
    CallStatus.QUEUED: ("Queued", "wait"),
    CallStatus.DIALING: ("Ringing agent", "wait"),
    CallStatus.RINGING: ("Ringing agent", "wait"),
    CallStatus.IN_PROGRESS: ("Talking", "live"),
    CallStatus.COMPLETED: ("Answered", "good"),
    CallStatus.ENDED: ("Ended", "quiet"),
    CallStatus.BUSY: ("Busy", "quiet"),
    CallStatus.NO_ANSWER: ("No answer", "quiet"),
    CallStatus.CANCELED: ("Canceled", "quiet"),
    CallStatus.AFTER_HOURS: ("After hours", "quiet"),
    CallStatus.FAILED: ("Failed", "bad"),
    CallStatus.TIMED_OUT: ("Timed out", "bad"),
}
_RINGING_CUSTOMER: Toned = ("Ringing customer", "wait")
_TRANSCRIBING: Toned = ("Transcribing", "wait")

TRANSCRIPT: dict[TranscriptStatus, Toned] = {
    TranscriptStatus.PENDING: ("Waiting for a worker", "wait"),
    TranscriptStatus.PROCESSING: ("Transcribing", "wait"),
    TranscriptStatus.READY: ("Ready", "good"),
    TranscriptStatus.FAILED: ("No transcript", "quiet"),
    TranscriptStatus.DISABLED: ("Not ordered", "quiet"),
}

_DELIVERY: dict[DeliveryStatus, Toned] = {
    DeliveryStatus.PENDING: ("Waiting", "wait"),
    DeliveryStatus.DELIVERED: ("Delivered", "good"),
    DeliveryStatus.FAILED: ("Failed", "bad"),
}

_EVENT = {
    "queued": "Accepted",
    "dialing": "Agent dialed",
    "agent:ringing": "Agent's telephone rings",
    "agent:answered": "Agent answered",
    "connecting": "Customer to be dialed",
    CUSTOMER_DIALED: "Customer dialed",
    "customer:ringing": "Customer's telephone rings",
    "answered": "Customer answered, both joined",
    "waiting": "Back in the queue",
    "waits_for_hours": "Waits for calling hours",
    HANGING_UP: "Being hung up",
    "canceled": "Canceled",
}

CAUSE = {
    "normal_clearing": "hung up normally",
    "user_busy": "line busy",
    "no_answer": "rang until the time was up",
    "call_rejected": "rejected",
    "unallocated_number": "number not in service",
    "originator_cancel": "canceled here",
    "normal_circuit_congestion": "no free line",
    "no_user_response": "no response",
}

OUTCOME_TONE = {
    "Interested": "c1",
    "Callback requested": "c2",
    "Connected": "c3",
    "Not interested": "c4",
    "Voicemail": "c5",
    "No conversation": "c6",
    "Do not call": "c7",
    "Wrong number": "c8",
}
_OTHER_OUTCOME = "c3"


class _StatusFacts(Protocol):
    """What decides the word for a call."""

    @property
    def status(self) -> CallStatus: ...
    @property
    def agent_answered_at(self) -> datetime | None: ...
    @property
    def transcript_status(self) -> TranscriptStatus: ...


def call_status(call: _StatusFacts) -> Toned:
    """The word for where a call is. An answered call is being transcribed until its transcript is there."""
    if call.status is CallStatus.RINGING and call.agent_answered_at is not None:
        return _RINGING_CUSTOMER
    if call.status is CallStatus.COMPLETED and call.transcript_status in (
        TranscriptStatus.PENDING,
        TranscriptStatus.PROCESSING,
    ):
        return _TRANSCRIBING
    return _STATUS[call.status]


def status_word(status: CallStatus) -> Toned:
    """The word for a status alone."""
    return _STATUS[status]


def delivery_status(status: str) -> Toned:
    """The word for a callback's status."""
    return _DELIVERY[DeliveryStatus(status)]


def event_word(key: str, status: str) -> str:
    """The word for an event of a call's history."""
    if key == "ended":
        return _STATUS[CallStatus(status)][0]
    if key.startswith(NOTE_KEY_PREFIX):
        return "Note"
    if key.startswith(REPORT_KEY_PREFIX):
        return f"Reported: {_STATUS[CallStatus(status)][0]}"
    return _EVENT.get(key, key.replace(":", " ").replace("_", " ").capitalize())


def outcome_tone(outcome: str | None) -> str:
    """The colour of an outcome's square."""
    return OUTCOME_TONE.get(outcome or "", _OTHER_OUTCOME)


def number(digits: str | None, *, whole: bool) -> str:
    """A telephone number as a person reads it: +91 98120 45671, or •••••2045671."""
    if not digits:
        return "–"
    if not whole:
        return mask(digits).replace("x", "•")
    if len(digits) == 12 and digits.startswith("91"):
        return f"+91 {digits[2:7]} {digits[7:]}"
    return f"+{digits}" if len(digits) > 7 else digits  # an extension of a PBX has no country


def length(seconds: float | None) -> str:
    """A length: 0:14, 12:05, 1:02:09."""
    if seconds is None:
        return "–"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def span(seconds: float | None) -> str:
    """A time span in one unit: 48 ms, 1.3 s, 12 min, 3 h, 2 d."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(0, seconds) * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size, most in (("min", 60, 100), ("h", 3600, 48)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def clock(at: datetime | None, zone: ZoneInfo, now: datetime) -> str:
    """A moment in this zone: 14:05:09 today, else 24 Nov 14:05."""
    if at is None:
        return "–"
    local, today = at.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local.day} {local:%b %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


def utc(at: datetime | None) -> str:
    """A moment in UTC, for the title of a local one."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, or in how long."""
    if at is None:
        return "never"
    gone = now - at
    if gone < timedelta(0):
        return f"in {span(-gone.total_seconds())}"
    return "just now" if gone < timedelta(seconds=2) else f"{span(gone.total_seconds())} ago"


def size(count: float) -> str:
    """A number of bytes: 3.1 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


_TAGS = {"DEVANAGARI": "hi", "ARABIC": "ur", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "GUJARATI": "gu"}


def language_of(words: str | None) -> str:
    """The language tag of a text by its script, so that a browser shows and speaks it rightly. `en` if it is Latin."""
    letters = [character for character in words or "" if character.isalpha()][:200]
    scripts = [unicodedata.name(character, "").partition(" ")[0] for character in letters]
    for script, tag in _TAGS.items():
        if scripts.count(script) * 3 > len(scripts):
            return tag
    return "en"
