"""Reads the fields of call reports: durations, dates and status words of many systems. Pure."""

import re
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta, timezone

from dateutil import parser

from app.telephony.base import CallStatus, Leg

_S = CallStatus
_LONGEST_SECONDS = 2**31 - 1

_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2}(?:\.\d+)?)")
_AMOUNT = r"(\d{1,10}(?:\.\d+)?)"
_UNITS = re.compile(
    rf"(?:pt)?(?:{_AMOUNT}\s*(?:h|hrs?|hours?))?[\s,]*(?:{_AMOUNT}\s*(?:m|mins?|minutes?))?[\s,]*"
    rf"(?:{_AMOUNT}\s*(?:s|secs?|seconds?)?)?"
)
_MILLISECONDS = re.compile(rf"{_AMOUNT}\s*(?:ms|msecs?|milliseconds?)")

_EPOCH = re.compile(r"(\d{10})(?:\d{3})?(?:\.\d+)?")
_HAS_SECONDS = re.compile(r"\d:\d\d:\d\d|^\d{8}[T ]?\d{6}")
_YEARS = range(1971, 9999)  # 1970 is a clock that was never set, and the last year has days that do not exist in UTC
_MONTH_FIRST = {"US", "FM", "PW"}
_MISSING_PARTS = datetime(2000, 1, 1), datetime(2001, 2, 2)  # noqa: DTZ001  # a wall clock's, as what is read

_PROGRESS = frozenset(
    (
        *("initiated", "initiating", "queued", "queue", "new", "created", "accepted", "started", "start", "trying"),
        *("dialing", "dialling", "dialed", "calling", "connecting", "progress", "inprogress", "ring", "ringing"),
        *("alerting", "early", "earlymedia", "bridged", "ongoing", "live", "hold", "onhold", "up"),
    )
)
"""Words for a call that goes on."""

_SIDES = ("agent", "customer", "caller", "callee")

_ENDS: dict[str, CallStatus] = {
    **dict.fromkeys(("answered", "answer", "connected", "success", "successful", "talked"), _S.COMPLETED),
    # A system says `completed` even if nobody answered the call.
    **dict.fromkeys(("completed", "complete", "ended", "finished", "hangup", "done"), _S.ENDED),
    **dict.fromkeys(("noanswered", "noanswer", "notanswered", "unanswered", "missed", "missedcall"), _S.NO_ANSWER),
    **dict.fromkeys(("timeout", "timedout", "ringtimeout", "noresponse", "nouserresponse"), _S.NO_ANSWER),
    **dict.fromkeys(("abandoned", "abandon", "rejected", "reject", "declined", "callrejected"), _S.NO_ANSWER),
    **dict.fromkeys(("unreachable", "notreachable", "switchedoff", "poweredoff", "outofcoverage"), _S.NO_ANSWER),
    **dict.fromkeys(("notconnected", "notpicked", "notpickedup", "nopickup"), _S.NO_ANSWER),
    **{f"{who}{what}": _S.NO_ANSWER for who in _SIDES for what in ("noanswer", "notanswered", "unanswered")},
    **{f"{who}busy": _S.BUSY for who in _SIDES},
    **dict.fromkeys(("busy", "userbusy", "linebusy", "numberbusy", "busyhere", "engaged"), _S.BUSY),
    **dict.fromkeys(("cancel", "canceled", "cancelled", "originatorcancel"), _S.CANCELED),
    # The caller hung up before anybody was connected.
    **dict.fromkeys(("clienthangup", "customerhangup", "callerhangup", "userdisconnected"), _S.CANCELED),
    **dict.fromkeys(("failed", "failure", "fail", "error", "congestion", "chanunavail", "unavailable"), _S.FAILED),
    **dict.fromkeys(("invalid", "invalidnumber", "unallocatednumber", "notinservice"), _S.FAILED),
    **dict.fromkeys(("afthrs", "afterhours", "outofhours"), _S.AFTER_HOURS),
    "temporaryfailed": _S.TIMED_OUT,
}

_LEGS: dict[str, Leg] = {
    **dict.fromkeys(("agent", "agentleg", "a", "aleg", "lega", "leg1", "1", "first", "from"), Leg.AGENT),
    **dict.fromkeys(("customer", "customerleg", "b", "bleg", "legb", "leg2", "2", "second", "to"), Leg.CUSTOMER),
}

_INBOUND = frozenset(("inbound", "incoming", "in", "inboundcall", "incomingcall"))


def read_status(word: str) -> CallStatus | None:
    """The end that this word means, in any case and punctuation. None: the call goes on.

    An unknown word means that the call is over, without saying how.
    """
    plain = _plain(word)
    return None if plain in _PROGRESS else _ENDS.get(plain, _S.ENDED)


def is_inbound(word: str | None) -> bool:
    """Whether this `call_type` is an inbound call. A report without it is of an inbound call."""
    return word is None or _plain(word) in _INBOUND


def read_leg(word: str) -> Leg:
    """The leg that a report is about. Raises ValueError."""
    try:
        return _LEGS[_plain(word)]
    except KeyError:
        raise ValueError("must be agent or customer") from None


def read_seconds(text: str) -> int:
    """Whole seconds of a duration: `83`, `83.4`, `83s`, `1.5 min`, `1m 23s`, `00:01:23`. Raises ValueError."""
    text = text.strip().casefold()
    if not text.isascii() or not (match := _CLOCK.fullmatch(text) or _MILLISECONDS.fullmatch(text) or _units(text)):
        raise ValueError("must be seconds, or hours:minutes:seconds")
    parts = [float(part or 0) for part in match.groups()]
    if match.re is _MILLISECONDS:
        seconds = parts[0] / 1000
    else:
        hours, minutes, rest = parts
        seconds = hours * 3600 + minutes * 60 + rest
    if seconds > _LONGEST_SECONDS:
        raise ValueError("is too long")
    return int(seconds)


def _units(text: str) -> re.Match[str] | None:
    match = _UNITS.fullmatch(text)
    return match if match is not None and any(match.groups()) else None


def read_date(text: str, *, day_first: bool = True) -> str:
    """When a call was, in one spelling: `2026-11-20T10:15:30`, with a Z and in UTC if the text has a time zone.

    Without a time zone, it is the wall clock of the reporting system. A day alone, or midnight exactly, gives
    `2026-11-20`. A time without seconds gives `2026-11-20T10:15`. `day_first`: 05/03/2026 is in March. Raises
    ValueError.
    """
    text = " ".join(text.split())
    at = _instant(text, day_first=day_first)
    if at.year not in _YEARS:
        raise ValueError("must be a date and time")
    if at.time() == time.min:
        return f"{at:%Y-%m-%d}"
    zone = "" if at.tzinfo is None else "Z"
    at = at if at.tzinfo is None else at.astimezone(UTC)
    has_seconds = _EPOCH.fullmatch(text) or _HAS_SECONDS.search(text)
    return f"{at:%Y-%m-%dT%H:%M:%S}{zone}" if has_seconds else f"{at:%Y-%m-%dT%H:%M}{zone}"


def is_day_first(home_country: str) -> bool:
    """Whether 05/03/2026 is in March there. `home_country` is an ISO code, as `IN`."""
    return home_country not in _MONTH_FIRST


def tells_calls_apart(date: str | None) -> bool:
    """Whether this date is exact enough that two calls of a customer cannot share it. `read_date` has read it."""
    return date is not None and date.count(":") == 2


def _instant(text: str, *, day_first: bool) -> datetime:
    if epoch := _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(int(epoch[1]), UTC)
    with suppress(ValueError):
        return datetime.fromisoformat(text.replace("/", "-") if text[:4].isdigit() else text)
    try:
        first, second = (
            parser.parse(text, default=missing, dayfirst=day_first, tzinfos=_zone) for missing in _MISSING_PARTS
        )
    except (ValueError, OverflowError) as error:
        raise ValueError("must be a date and time") from error
    if first != second:  # a part of the day was filled in
        raise ValueError("must have a year, a month and a day")
    return first


def _zone(_: str | None, offset: int | None) -> timezone | None:
    """The time zone of an offset. Names of zones are left out, because some mean several (IST)."""
    return None if offset is None else timezone(timedelta(seconds=offset))


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())
