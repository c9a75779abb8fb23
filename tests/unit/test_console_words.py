"""The console's words: each state has one, and times read as people say them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.console import words
from app.models import DeliveryStatus, TranscriptStatus
from app.telephony.base import CallStatus
from app.transcription.outcome import OUTCOMES

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
INDIA = ZoneInfo("Asia/Kolkata")


def test_each_state_has_a_word_of_its_own() -> None:
    said = [words.status_word(status)[0] for status in CallStatus if status is not CallStatus.DIALING]
    assert len(said) == len(set(said))
    assert set(words.TRANSCRIPT) == set(TranscriptStatus)
    assert len({words.delivery_status(status) for status in DeliveryStatus}) == len(DeliveryStatus)
    assert {words.outcome_tone(outcome) for outcome in OUTCOMES} == {f"c{n}" for n in range(1, 9)}
    assert words.outcome_tone("of somebody's own") == words.outcome_tone(None)


@pytest.mark.parametrize(
    ("digits", "whole", "shown"),
    [
        ("919812345678", True, "+91 98123 45678"),
        ("919812345678", False, "•••••2345678"),
        ("447400123456", True, "+447400123456"),
        ("101", True, "101"),
        ("101", False, "•••"),
        (None, True, "–"),
    ],
)
def test_a_number_reads_as_people_write_it(digits: str | None, whole: bool, shown: str) -> None:
    assert words.number(digits, whole=whole) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 ms"), (0.048, "48 ms"), (1.26, "1.3 s"), (42, "42 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_a_span_has_one_unit(seconds: float, shown: str) -> None:
    assert words.span(seconds) == shown


def test_lengths_and_moments() -> None:
    assert [words.length(seconds) for seconds in (None, 0, 67, 3729)] == ["–", "0:00", "1:07", "1:02:09"]
    assert words.clock(NOW, INDIA, NOW) == "17:30:00"
    assert words.clock(NOW - timedelta(days=4), INDIA, NOW) == "24 Nov 17:30"
    assert words.clock(NOW - timedelta(days=400), INDIA, NOW) == "2025-10-24 17:30"
    assert words.ago(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert words.ago(NOW + timedelta(minutes=3), NOW) == "in 3 min"
    assert [words.size(count) for count in (12, 3_100_000, 212e9)] == ["12 B", "3.1 MB", "212 GB"]


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Good morning", "en"),
        ("जी हाँ, ठीक है", "hi"),
        ("Okay, शनिवार सुबह ठीक रहेगा", "hi"),
        ("", "en"),
        (None, "en"),
        ("வணக்கம்", "ta"),
    ],
)
def test_the_script_tells_the_language(text: str | None, tag: str) -> None:
    assert words.language_of(text) == tag


def test_a_note_and_a_report_are_called_what_they_are() -> None:
    assert words.event_word("note:abc", "queued") == "Note"
    assert words.event_word("ended", "busy") == "Busy"
    assert words.event_word("answered", "in_progress") == "Customer answered, both joined"
    assert words.event_word("something:new_here", "ringing") == "Something new here"
