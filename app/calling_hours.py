"""Hours in which calls may be made. Pure.

Written as `Mon-Sat 09:00-21:00`, several with commas: `Mon-Fri 09:00-21:00, Sat 10:00-14:00`. A day that no part names
is closed. An end before its start is on the next day: `Mon-Sun 22:00-06:00`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PART = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_RULE = "must be like `Mon-Sat 09:00-21:00`, several separated by commas"


@dataclass(frozen=True, slots=True)
class _Span:
    """Minutes of the week, from Monday 00:00: from `start` until before `end`, which may lie in the next week."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CallingHours:
    """When calls may be made, by the clock of `zone`."""

    text: str
    zone: ZoneInfo
    spans: tuple[_Span, ...]

    def are_open(self, now: datetime) -> bool:
        """Whether calls may be made now."""
        return self.next_opening(now) <= now

    def next_opening(self, now: datetime) -> datetime:
        """`now`, if calls may be made now. Else when they may be made next."""
        local = now.astimezone(self.zone)
        monday = (local - timedelta(days=local.weekday())).date()
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        if any(span.start <= at < span.end for span in self.spans for at in (minute, minute + _WEEK)):
            return now
        starts = [at for span in self.spans for at in (span.start, span.start + _WEEK) if at > minute]
        days, minutes = divmod(min(starts), _DAY)
        opens = datetime.combine(monday + timedelta(days=days), time(minutes // 60, minutes % 60), self.zone)
        return opens.astimezone(now.tzinfo)

    def __str__(self) -> str:
        return f"{self.text} ({self.zone.key})"


def next_opening(hours: Iterable[CallingHours], now: datetime) -> datetime:
    """`now`, if all of these are open now. Else when all of them are open next."""
    at, every = now, tuple(hours)
    for _ in range(_MOST_STEPS):
        later = max((each.next_opening(at) for each in every), default=at)
        if later <= at:
            break
        at = later
    return at


_MOST_STEPS = 50  # hours that are never open together end the search
_DAY = 24 * 60
_WEEK = 7 * _DAY


def read_hours(text: str, zone: ZoneInfo) -> CallingHours:
    """Raises ValueError with the rule."""
    spans = []
    parts = [" ".join(part.split()).lower() for part in text.split(",")]
    for part in filter(None, parts):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(_RULE)
        first, last = found[1], found[2] or found[1]
        if first not in _DAYS or last not in _DAYS:
            raise ValueError(f"{_RULE}. The days are Mon, Tue, Wed, Thu, Fri, Sat and Sun")
        opens, closes = (_minutes(found[hour], found[hour + 1]) for hour in (3, 5))
        length = (closes - opens) % _DAY or _DAY
        for day in _days(_DAYS.index(first), _DAYS.index(last)):
            spans.append(_Span(day * _DAY + opens, day * _DAY + opens + length))
    if not spans:
        raise ValueError(_RULE)
    return CallingHours(", ".join(part.title() for part in parts if part), zone, tuple(spans))


def _minutes(hour: str, minute: str) -> int:
    if int(hour) > 24 or int(minute) > 59 or (int(hour) == 24 and int(minute)):
        raise ValueError(f"{_RULE}. {hour}:{minute} is no time of day")
    return int(hour) * 60 + int(minute)


def _days(first: int, last: int) -> list[int]:
    return [(first + offset) % 7 for offset in range((last - first) % 7 + 1)]
