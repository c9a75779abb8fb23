"""What other systems write into the fields of a report."""

import pytest

from app.report_fields import is_inbound, read_date, read_leg, read_seconds, read_status, tells_calls_apart
from app.telephony.base import CallStatus, Leg


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("83", 83),
        ("83.9", 83),
        ("83s", 83),
        ("83 sec", 83),
        ("1.5 min", 90),
        ("1m 23s", 83),
        ("00:01:23", 83),
        ("1:23", 83),
        ("PT1M23S", 83),
        ("1 hour 2 minutes", 3720),
        ("1500 ms", 1),
        ("0", 0),
    ],
)
def test_durations(written: str, seconds: int) -> None:
    assert read_seconds(written) == seconds


@pytest.mark.parametrize(
    "written", ["-1", "", "soon", "nan", "1e9", "9999999999", "83,5", "12 monkeys", "٣", "1:2:3:4"]
)
def test_what_is_no_duration(written: str) -> None:
    with pytest.raises(ValueError, match=r"seconds|long"):
        read_seconds(written)


@pytest.mark.parametrize(
    ("written", "date"),
    [
        *[
            (written, "2026-11-20T10:15:30")
            for written in (
                "2026-11-20 10:15:30",
                "2026-11-20T10:15:30",
                "2026/11/20 10:15:30",
                "2026-11-20 10:15:30.250",
                " 20/11/2026  10:15:30",
                "20-11-2026 10:15:30",
                "20.11.2026 10:15:30",
                "20-Nov-2026 10:15:30",
                "Nov 20, 2026 10:15:30 AM",
                "2026-11-20 10:15:30 IST",
                "20261120101530",
                "20261120T101530",
            )
        ],
        ("2026-11-20T10:15:30+05:30", "2026-11-20T04:45:30Z"),
        ("Fri, 20 Nov 2026 10:15:30 +0530", "2026-11-20T04:45:30Z"),
        ("1795168530", "2026-11-20T09:55:30Z"),
        ("1795168530123", "2026-11-20T09:55:30Z"),
        ("05/03/2026 10:15", "2026-03-05T10:15"),
        ("2026-11-20", "2026-11-20"),
        ("2026-11-20 00:00:00", "2026-11-20"),
        ("2026-11-20T00:00:00Z", "2026-11-20"),
    ],
)
def test_dates(written: str, date: str) -> None:
    assert read_date(written) == date
    assert tells_calls_apart(date) == (len(date) >= len("2026-11-20T10:15:30"))


def test_a_country_may_write_the_month_first() -> None:
    assert read_date("05/03/2026 10:15", day_first=False) == "2026-05-03T10:15"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "yesterday, half past nine-ish",
        "0000-00-00 00:00:00",
        "10:15",
        "5",
        "2026-13-45",
        "1970-01-01",
        "9" * 17,
        "9999-12-31T23:59:59-10:00",
    ],
)
def test_what_is_no_date(written: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read_date(written)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("ANSWER", CallStatus.COMPLETED),
        ("completed", CallStatus.ENDED),
        ("No Answer", CallStatus.NO_ANSWER),
        ("abandoned", CallStatus.NO_ANSWER),
        ("client-hangup", CallStatus.CANCELED),
        ("CANCEL", CallStatus.CANCELED),
        ("timeout", CallStatus.NO_ANSWER),
        ("rejected", CallStatus.NO_ANSWER),
        ("unreachable", CallStatus.NO_ANSWER),
        ("Switched Off", CallStatus.NO_ANSWER),
        ("user_busy", CallStatus.BUSY),
        ("Customer Busy", CallStatus.BUSY),
        ("Agent Unanswered", CallStatus.NO_ANSWER),
        ("Not Connected", CallStatus.NO_ANSWER),
        ("CONGESTION", CallStatus.FAILED),
        ("chanunavail", CallStatus.FAILED),
        ("afthrs", CallStatus.AFTER_HOURS),
        ("a word that nobody knows", CallStatus.ENDED),
        ("in-progress", None),
        ("Ringing", None),
    ],
)
def test_status_words(word: str, status: CallStatus | None) -> None:
    assert read_status(word) == status


def test_calls_that_came_in() -> None:
    assert all(is_inbound(word) for word in (None, "inbound", "INCOMING", "In", "in-bound"))
    assert not any(is_inbound(word) for word in ("C2C", "outbound", "agent_telephony", "1"))


def test_legs() -> None:
    assert [read_leg(word) for word in ("Agent", "A-leg", "leg1")] == [Leg.AGENT] * 3
    assert [read_leg(word) for word in ("customer", "B", "to")] == [Leg.CUSTOMER] * 3
    with pytest.raises(ValueError, match="agent or customer"):
        read_leg("left")
