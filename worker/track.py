"""Track one dialed call: ask the provider what happened, apply that to the call, and come back.

Every dialed call has exactly one such task until it ends, added in the commit that claimed its dial attempt. So the
call comes to an end even if the worker that dialed dies, the provider's answer is lost, or no event ever comes.
"""

import asyncio
from datetime import UTC, datetime

import structlog

from app import call_lookups, calls, tasks
from app.call_lookups import LiveCall
from app.call_state import TERMINAL
from app.engine_models import TaskKind
from app.tasks import ClaimedTask
from app.telephony.base import (
    CallEvent,
    CallStatus,
    Capabilities,
    Leg,
    ProviderError,
    Snapshot,
)
from worker.context import Context
from worker.dial import STALE_SECONDS
from worker.telemetry import asked

log = structlog.get_logger()

_AFTER_TROUBLE_SECONDS = 1.0
_UNKNOWN = "The telephony provider does not know this call; it was not dialed again, to be safe. Place a new one"
_TAKEN = "The telephony provider took this call, and how it ended was not seen. It was not dialed again, to be safe"
_LOST = "The telephony provider no longer knows this call, and how it ended was not seen"
_LET_EVENTS_ARRIVE_SECONDS = 2.0
"""A call that the provider no longer knows has ended. The event of that end may be on its way, and says more."""


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        call = await call_lookups.find_live(session, task.call_id)
        if call is None:
            await tasks.finish(session, task)
            return

    events, again = await _ask(context, task.provider, call)
    expired = call.now >= call.expires_at
    cut = expired and call.status == CallStatus.IN_PROGRESS and not call.being_hung_up
    if expired and not cut:
        events.append(_timed_out(call))

    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        status = await calls.apply_events(
            session, task.call_id, events, max_call_seconds=context.settings.max_call_seconds
        )
        if cut and status == CallStatus.IN_PROGRESS:
            longest = context.settings.max_call_seconds
            await calls.hang_up(session, task.call_id, f"Hung up after {longest:.0f} s (the longest allowed)")
        if status is not None and status not in TERMINAL:
            left = (call.expires_at - call.now).total_seconds()
            await tasks.add(session, TaskKind.TRACK, task.call_id, delay=min(again, left) if left > 0 else again)


async def _ask(context: Context, name: str, call: LiveCall) -> tuple[list[CallEvent], float]:
    """The events that the provider reports, and in how many seconds to ask again."""
    if call.only_reported:
        return [], context.settings.answer_timeout_seconds
    try:
        async with context.providers.use(name) as provider:
            can, snapshot = provider.capabilities, await asked(name, "fetch", provider.fetch(call.ref))
    except ProviderError as error:
        log.warning("provider_unreachable", provider=name, call_id=call.ref.call_id, error=str(error))
        return [], max(_AFTER_TROUBLE_SECONDS, error.retry_after or 0)
    if snapshot is not None and snapshot.reference is not None and snapshot.reference != call.ref.reference:
        async with context.db.transaction() as session:
            if not await calls.save_found_reference(session, call.ref.call_id, snapshot.reference):
                snapshot = None  # it is another call of ours, with the same numbers
    return await _interpret(context, can, call, snapshot)


async def _interpret(
    context: Context, can: Capabilities, call: LiveCall, snapshot: Snapshot | None
) -> tuple[list[CallEvent], float]:
    """The events that the provider's answer means, and in how many seconds to ask again."""
    events = list(snapshot.events) if snapshot is not None else []
    usual = can.poll_seconds
    again = usual if snapshot is None or snapshot.check_after is None else snapshot.check_after
    alone = any(event.agent_waiting for event in events)
    if snapshot is not None and not alone:
        return events, again

    # Either the provider does not know the call, or it has an agent without a customer. Both are normal for a moment
    # after dialing. Later, something was missed.
    since = call.customer_dialed_at if alone else call.dialed_at
    if call.status == CallStatus.IN_PROGRESS:
        missed = CallEvent(
            "ended",
            CallStatus.COMPLETED,
            datetime.now(UTC),
            ended_by=Leg.CUSTOMER if alone else None,
            has_recording=True,
            detail="The end itself was not seen",
            late=True,
        )
    elif since is None or (call.now - since).total_seconds() < _grace(context, can):
        return events, min(again, _AFTER_TROUBLE_SECONDS) if snapshot is None else again
    elif call.status == CallStatus.DIALING:
        missed = CallEvent(
            "never_arrived",
            CallStatus.FAILED,
            datetime.now(UTC),
            detail=_TAKEN if call.ref.reference else _UNKNOWN,
        )
    else:
        missed = CallEvent(
            "lost",
            CallStatus.FAILED,
            datetime.now(UTC),
            leg=Leg.CUSTOMER if alone else None,
            has_recording=call.customer_dialed_at is not None,
            detail=_LOST,
            late=True,
        )
    if call.status != CallStatus.DIALING:
        await asyncio.sleep(_LET_EVENTS_ARRIVE_SECONDS)
    return [*events, missed], again


def _grace(context: Context, can: Capabilities) -> float:
    """By then the worker that claimed the dial attempt has sent the request, or given it up."""
    return max(context.settings.dial_grace_seconds, STALE_SECONDS + can.longest_dial_seconds)


def _timed_out(call: LiveCall) -> CallEvent:
    talking = call.status == CallStatus.IN_PROGRESS
    return CallEvent(
        "timed_out",
        CallStatus.TIMED_OUT,
        datetime.now(UTC),
        has_recording=talking,
        detail=f"No {'end' if talking else 'answer'} was reported in time",
    )
