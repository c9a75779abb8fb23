"""When calls may be made."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from app.calling_hours import next_opening, read_hours

INDIA, LONDON = ZoneInfo("Asia/Kolkata"), ZoneInfo("Europe/London")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "now", "opens"),
    [
        ("Mon-Sat 09:00-21:00", "2026-11-28T03:29:59", "2026-11-28T03:30"),  # a Saturday
        ("Mon-Sat 09:00-21:00", "2026-11-28T03:30:00", None),
        ("Mon-Sat 09:00-21:00", "2026-11-28T15:29:59", None),
        ("Mon-Sat 09:00-21:00", "2026-11-28T15:30:00", "2026-11-30T03:30"),  # after Sunday
        ("mon-fri 9:00-21:00, sat 10:00-14:00", "2026-11-28T04:00", "2026-11-28T04:30"),
        ("Sat-Mon 09:00-21:00", "2026-11-29T12:00", None),  # over the end of the week
        ("Mon-Sun 22:00-06:00", "2026-11-28T20:00", None),  # over midnight
        ("Sun 22:00-06:00", "2026-11-30T00:00", None),  # over the end of the week, in the night to Monday
        ("Sun 22:00-06:00", "2026-11-30T01:00", "2026-12-06T16:30"),
        ("Mon-Sun 00:00-24:00", "2026-11-28T18:30", None),
        ("Wed 00:00-00:00", "2026-12-02T10:00", None),
    ],
)
def test_next_opening(written: str, now: str, opens: str | None) -> None:
    hours = read_hours(written, INDIA)
    assert hours.next_opening(at(now)) == at(opens or now)
    assert hours.are_open(at(now)) is (opens is None)


def test_the_clock_of_the_zone_counts_when_it_changes() -> None:
    hours = read_hours("Mon-Sun 09:00-17:00", LONDON)
    assert hours.next_opening(at("2026-03-28T20:00")) == at("2026-03-29T08:00"), "summer time began in that night"
    assert hours.next_opening(at("2026-10-24T20:00")) == at("2026-10-25T09:00")


def test_hours_of_installation_and_user_must_both_be_open() -> None:
    installation, user = read_hours("Mon-Fri 09:00-21:00", INDIA), read_hours("Mon-Sun 20:00-23:00", INDIA)
    assert next_opening([installation, user], at("2026-11-28T15:00")) == at("2026-11-30T14:30")
    assert next_opening([], at("2026-11-28T15:00")) == at("2026-11-28T15:00")
    never = read_hours("Sun 10:00-11:00", INDIA)
    assert next_opening([installation, never], at("2026-11-28T15:00")) > at("2026-11-28T15:00")


@pytest.mark.parametrize(
    "wrong",
    ["", ",", "always", "Mon", "09:00-21:00", "Mon 9-21", "Mon-Xyz 09:00-21:00", "Mon 25:00-26:00", "Mon 09:60-10:00",
     "Mon 24:01-25:00", "Mon 09:00–21:00"],
)  # fmt: skip
def test_what_is_wrong_is_said(wrong: str) -> None:
    with pytest.raises(ValueError, match="must be like `Mon-Sat 09:00-21:00`"):
        read_hours(wrong, INDIA)
