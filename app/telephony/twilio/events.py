"""What Twilio's calls say, in the port's words. No I/O.

Our call is two calls at Twilio: the agent's, and its child, the customer's. The agent's is `in-progress` while the
customer is still being dialed, and `completed` even if the customer never answered. So only the customer's says how our
call ended, once it exists.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from app.telephony.base import CallEvent, CallStatus, Leg

_S = CallStatus

LIVE = frozenset({"queued", "initiated", "ringing", "in-progress"})

# How an unanswered leg ended: our status, the cause in FreeSWITCH's words, and a sentence.
_UNANSWERED = {
    "busy": (_S.BUSY, "user_busy", "The {leg}'s line is busy"),
    "no-answer": (_S.NO_ANSWER, "no_answer", "The {leg} did not answer"),
    "failed": (
        _S.FAILED,
        "normal_unspecified",
        "The {leg} could not be called. Is the number right, and allowed there?",
    ),
    "canceled": (_S.CANCELED, "originator_cancel", "Hung up before the {leg} answered"),
}
KNOWN = LIVE | _UNANSWERED.keys() | {"completed"}

NOT_DIALED = (
    "The agent answered, and the customer was not dialed: the agent hung up at once, or the provider refused the "
    "number. Its own log of errors says which"
)
_LET_CHILD_APPEAR = timedelta(seconds=5)
"""An ended call whose child does not show is asked again for so long, because lists may lag behind."""


def call_events(
    agent: dict[str, Any], customer: dict[str, Any] | None, now: datetime, unknown: Callable[[str, object], None]
) -> list[CallEvent]:
    """Every event of the call so far, oldest first. `now` is the time at the provider. It is that of states without a
    time of their own. `unknown` is told of words that are not in Twilio's documentation."""
    for call in (agent, customer or {}):
        if call.get("status", "queued") not in KNOWN:
            unknown("status of a call", call["status"])
    status = agent.get("status")
    late = CallEvent("", _S.RINGING, now, leg=Leg.AGENT, late=True)
    if status == "ringing":
        return [replace(late, key="agent:ringing")]
    if status in _UNANSWERED:
        return [_unanswered(agent, Leg.AGENT, now)]
    if status not in ("in-progress", "completed"):
        return []
    if customer is None:
        ended = time_of(agent, "end_time")
        if status == "completed" and ended is not None and now - ended >= _LET_CHILD_APPEAR:
            return [
                CallEvent(
                    "ended", _S.FAILED, ended, leg=Leg.CUSTOMER, detail=NOT_DIALED, hangup_cause="no_route_destination"
                )
            ]
        return [replace(late, key="agent:answered")]
    # The customer's leg is created once the agent has answered, and has heard the announcement.
    began = time_of(customer, "date_created")
    answered = late if began is None else replace(late, at=began, late=False)
    return [replace(answered, key="agent:answered"), *_customer_events(customer, began, now)]


def _customer_events(customer: dict[str, Any], began: datetime | None, now: datetime) -> list[CallEvent]:
    status = customer.get("status")
    late = CallEvent("", _S.RINGING, now, leg=Leg.CUSTOMER, late=True)
    if status == "ringing":
        return [replace(late, key="customer:ringing")]
    if status in _UNANSWERED:
        return [_unanswered(customer, Leg.CUSTOMER, now)]
    if status == "in-progress":
        return [replace(late, key="answered", status=_S.IN_PROGRESS)]
    if status != "completed":
        return []
    seconds = _seconds(customer.get("duration"))
    end, start = time_of(customer, "end_time"), time_of(customer, "start_time")
    ended = CallEvent(
        "ended",
        _S.COMPLETED,
        end or now,
        hangup_cause="normal_clearing",
        has_recording=True,
        late=end is None,
        talk_seconds=seconds,
    )
    # `start_time` may be when it began to ring. The duration counts from the answer.
    times = [time for time in (start, began) if time is not None]
    if end is not None and seconds is not None:
        times.append(end - timedelta(seconds=seconds))
    answered = CallEvent(
        "answered",
        _S.IN_PROGRESS,
        min(max(times, default=ended.at), ended.at),
        leg=Leg.CUSTOMER,
        late=end is None or seconds is None,
    )
    return [answered, ended]


def _unanswered(call: dict[str, Any], leg: Leg, now: datetime) -> CallEvent:
    status, cause, sentence = _UNANSWERED[call["status"]]
    at = time_of(call, "end_time")
    return CallEvent(
        "ended",
        status,
        at or now,
        leg=leg,
        hangup_cause=cause,
        detail=sentence.format(leg=leg),
        late=at is None,
    )


def time_of(call: dict[str, Any], name: str) -> datetime | None:
    """A time of a call, which is RFC 2822, or ISO 8601 at some copies."""
    written = call.get(name)
    if not isinstance(written, str):
        return None
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            time = parse(written)
        except ValueError:
            continue
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return None


def _seconds(written: object) -> float | None:
    try:
        return float(str(written))
    except ValueError:
        return None
