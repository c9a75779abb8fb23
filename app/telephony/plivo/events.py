"""What calls at Plivo and Vobiz say, in the port's words. No I/O.

Our call is two calls there: the agent's, and the customer's. A call that is up has a `call_status`. An ended one has a
record with its hangup cause.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.telephony.base import CallEvent, CallStatus, Leg

_S = CallStatus

# By the hangup cause's name in lower case, because it tells more than its number: our status, the cause in
# FreeSWITCH's words, and a sentence.
_CAUSES = {
    "busy line": (_S.BUSY, "user_busy", "The {leg}'s line is busy"),
    "busy": (_S.BUSY, "user_busy", "The {leg}'s line is busy"),
    "no answer": (_S.NO_ANSWER, "no_answer", "The {leg} did not answer"),
    "ring timeout reached": (_S.NO_ANSWER, "no_answer", "The {leg} did not answer"),
    "rejected": (_S.NO_ANSWER, "call_rejected", "The {leg} rejected the call"),
    "declined": (_S.NO_ANSWER, "call_rejected", "The {leg} rejected the call"),
    "canceled": (_S.CANCELED, "originator_cancel", "Hung up before the {leg} answered"),
    "cancelled": (_S.CANCELED, "originator_cancel", "Hung up before the {leg} answered"),
    "normal hangup": (_S.NO_ANSWER, "no_answer", "The {leg} did not answer"),
    "invalid destination address": (_S.FAILED, "invalid_number_format", "The {leg}'s number is not valid"),
    "destination out of service": (_S.FAILED, "unallocated_number", "The {leg}'s number is not in service"),
}
_LIVE = {"queued", "initiated", "ringing", "in-progress"}
_LET_RECORD_APPEAR = timedelta(seconds=20)
"""The record of an ended leg may come so much later than the other's."""
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class LegRecord:
    """One leg. `number` was called, and `caller` is shown. `status` is that of a leg that is up, or None if it has
    ended."""

    number: str
    status: str | None
    caller: str = ""
    created: datetime | None = None
    answered: datetime | None = None
    ended: datetime | None = None
    talk_seconds: float | None = None
    cause: str = ""
    hangup_source: str = ""

    @property
    def was_answered(self) -> bool:
        return self.answered is not None or bool(self.talk_seconds)


def live_leg(call: dict[str, Any]) -> LegRecord:
    status = str(call.get("call_status", ""))
    return LegRecord(_number(call, "to"), status, _number(call, "from"), created=time_of(call, "session_start"))


def ended_leg(call: dict[str, Any]) -> LegRecord:
    """A leg by its record. Vobiz names some fields otherwise."""
    talk = call.get("bill_duration", call.get("billsec"))
    return LegRecord(
        _number(call, "to_number", "destination_number"),
        None,
        _number(call, "from_number", "caller_id_number"),
        created=time_of(call, "initiation_time", "start_time"),
        answered=time_of(call, "answer_time"),
        ended=time_of(call, "end_time"),
        talk_seconds=float(talk) if isinstance(talk, int | float) else None,
        cause=str(call.get("hangup_cause_name") or ""),
        hangup_source=str(call.get("hangup_source") or ""),
    )


def call_events(
    agent: LegRecord, customer: LegRecord | None, now: datetime, unknown: Callable[[str, object], None]
) -> list[CallEvent]:
    """Every event of the call so far, oldest first. `now` is the time at the provider. `unknown` is told of words that
    are not known."""
    for leg in (agent, customer):
        if leg is not None and leg.status is not None and leg.status not in _LIVE:
            unknown("status of a call", leg.status)
    if agent.status == "ringing":
        return [CallEvent("agent:ringing", _S.RINGING, now, leg=Leg.AGENT, late=True)]
    if agent.status not in (None, "in-progress"):
        return []
    if agent.status is None and not agent.was_answered:
        return [_unanswered(agent, Leg.AGENT, now, unknown)]
    began = agent.answered or (customer.created if customer is not None else None)
    answered = CallEvent("agent:answered", _S.RINGING, began or now, leg=Leg.AGENT, late=began is None)
    if customer is not None:
        return [answered, *_customer_events(customer, now, unknown)]
    if agent.status is None and agent.ended is not None and now - agent.ended >= _LET_RECORD_APPEAR:
        detail = (
            "The agent answered, and the customer was not dialed. Does the provider reach this server's public address?"
        )
        if agent.cause:
            detail = f"{detail} ({agent.cause})"
        lost = CallEvent("ended", _S.FAILED, agent.ended, leg=Leg.CUSTOMER, detail=detail)
        return [answered, replace(lost, hangup_cause="no_route_destination")]
    return [answered]


def _customer_events(customer: LegRecord, now: datetime, unknown: Callable[[str, object], None]) -> list[CallEvent]:
    if customer.status == "ringing":
        return [CallEvent("customer:ringing", _S.RINGING, now, leg=Leg.CUSTOMER, late=True)]
    if customer.status == "in-progress":
        return [CallEvent("answered", _S.IN_PROGRESS, now, leg=Leg.CUSTOMER, late=True)]
    if customer.status is not None:
        return []
    if not customer.was_answered:
        return [_unanswered(customer, Leg.CUSTOMER, now, unknown)]
    end, talk = customer.ended or now, customer.talk_seconds
    began = customer.answered or (end if talk is None else end - timedelta(seconds=talk))
    leaver = {"caller": Leg.AGENT, "callee": Leg.CUSTOMER, "call recipient": Leg.CUSTOMER}.get(
        customer.hangup_source.lower()
    )
    ended = CallEvent(
        "ended",
        _S.COMPLETED,
        end,
        leg=leaver,
        ended_by=leaver,
        hangup_cause="normal_clearing",
        has_recording=True,
        late=customer.ended is None,
        talk_seconds=talk,
    )
    answered = CallEvent("answered", _S.IN_PROGRESS, min(began, end), leg=Leg.CUSTOMER, late=customer.answered is None)
    return [answered, ended]


def _unanswered(leg: LegRecord, which: Leg, now: datetime, unknown: Callable[[str, object], None]) -> CallEvent:
    cause = leg.cause.lower()
    if cause not in _CAUSES:
        unknown("hangup cause", leg.cause)
    status, word, sentence = _CAUSES.get(cause, (_S.FAILED, "normal_unspecified", "The {leg} could not be called"))
    detail = f"{sentence.format(leg=which)} ({leg.cause or 'no cause was told'})"
    return CallEvent(
        "ended", status, leg.ended or now, leg=which, hangup_cause=word, detail=detail, late=leg.ended is None
    )


def _number(call: dict[str, Any], *names: str) -> str:
    """The first of these numbers, in digits."""
    return next((str(call[name]) for name in names if call.get(name)), "").removeprefix("+")


def time_of(call: dict[str, Any], *names: str) -> datetime | None:
    """The first of these times. One without a time zone is not used: it is in that of the console."""
    return next((time.astimezone(UTC) for time in _times(call, names) if time.tzinfo is not None), None)


def live_since(call: dict[str, Any], earliest: datetime) -> datetime | None:
    """When a call that is up began. Zones differ by quarters of an hour. So a time without a zone is the first one from
    `earliest` on that has its minutes and seconds. For a call that has ended, this would be too vague."""
    time = next(_times(call, ("session_start",)), None)
    if time is None or time.tzinfo is not None:
        return time
    return earliest + (time.replace(tzinfo=UTC) - earliest) % _QUARTER


def _times(call: dict[str, Any], names: Iterable[str]) -> Iterator[datetime]:
    for name in names:
        with suppress(ValueError):
            yield datetime.fromisoformat(str(call.get(name)))
