"""What the end of a channel means, as Asterisk 22 reports it, with and without earlier events."""

from typing import Any

import pytest

from app.telephony.asterisk.events import EventTranslator

CALL = "call_0000000000000abc"
CHANNEL = f"{CALL}-agent"


def event(type_: str, state: str = "Down", **more: Any) -> dict[str, Any]:
    channel = {"id": CHANNEL, "state": state}
    place = "peer" if type_ == "Dial" else "channel"
    return {"type": type_, place: channel, "timestamp": "2026-11-24T12:00:00.000+0000", **more}


DIAL = event("Dial", dialstatus="")
RINGING = event("ChannelStateChange", "Ringing")
DELETED = event("ChannelHangupRequest", cause=32, soft=True)
NEVER_SENT = (
    event("ChannelHangupRequest", cause=16, tech_cause=603),
    event("ChannelDestroyed", cause=16, tech_cause=603),
)
BUSY = (event("ChannelHangupRequest", cause=17, tech_cause=486), event("ChannelDestroyed", cause=17, tech_cause=486))
TIMED_OUT = (DELETED, event("ChannelDestroyed", "Ringing", cause=19))


@pytest.mark.parametrize(
    ("there_before", "events", "expected"),
    [
        (None, (DIAL, *BUSY), "busy"),
        (None, (DIAL, RINGING, *TIMED_OUT), "no_answer"),
        (None, (DIAL, DELETED, event("ChannelDestroyed", cause=16)), "canceled"),
        (None, (DELETED, *NEVER_SENT), None),  # created, and given up before it was dialed
        ("Down", (DELETED, *NEVER_SENT), None),
        ("Down", BUSY, "busy"),  # dialed before the stream began
        ("Ringing", TIMED_OUT, "no_answer"),
        (None, TIMED_OUT, "no_answer"),  # it ended while the stream began; a channel that rings was dialed
    ],
)
def test_the_end_of_a_channel(
    there_before: str | None, events: tuple[dict[str, Any], ...], expected: str | None
) -> None:
    translator = EventTranslator()
    if there_before is not None:
        translator.remember({"id": CHANNEL, "state": there_before})
    ends = [report.event for one in events if (report := translator.translate(one)) and report.event.key == "ended"]
    assert [end.status for end in ends] == ([] if expected is None else [expected])
