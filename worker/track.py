"""Follow one dialled call: ask the provider what it says now, let that change the call, and come back.

Every call that was dialled has exactly one of these tasks until it ends, added in the very commit that spent the
right to dial. So a call whose dialling worker died, whose provider's answer was lost, or of which nothing is ever
heard again, comes to an end all the same.
"""

from datetime import UTC, datetime

import structlog

from app import calls, tasks
from app.call_state import TERMINAL
from app.calls import LiveCall
from app.models import TaskKind
from app.tasks import ClaimedTask
from app.telephony.base import CallEvent, CallStatus, ProviderError, Snapshot
from worker.context import Context

log = structlog.get_logger()

_AFTER_TROUBLE_SECONDS = 1.0


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        call = await calls.get_live(session, task.call_id)
        if call is None:
            await tasks.finish(session, task)
            return

    expired = call.now >= call.expires_at
    if expired:
        await _hang_up(context, call)
    events: list[CallEvent]
    try:
        snapshot = await context.provider.fetch(call.ref)
    except ProviderError as error:
        log.warning("provider_unreachable", call_id=task.call_id, error=str(error))
        events, again = [], _AFTER_TROUBLE_SECONDS
    else:
        events, again = _what_it_means(context, call, snapshot)
    if expired:
        events.append(_timed_out(call))

    async with tasks.transaction(context.db, context.hints) as session:
        await tasks.finish(session, task)
        status = await calls.apply_events(
            session, task.call_id, events, max_call_seconds=context.settings.max_call_seconds
        )
        if status is not None and status not in TERMINAL:
            await tasks.add(session, TaskKind.TRACK, task.call_id, delay=again)


def _what_it_means(context: Context, call: LiveCall, snapshot: Snapshot | None) -> tuple[list[CallEvent], float]:
    """The events of a provider's answer, and in how many seconds to ask again."""
    if snapshot is not None:
        usual = context.provider.capabilities.poll_seconds
        return list(snapshot.events), usual if snapshot.check_after is None else snapshot.check_after
    if (call.now - call.dialed_at).total_seconds() < context.settings.dial_grace_seconds:
        return [], _AFTER_TROUBLE_SECONDS  # the request may still be on its way
    never_arrived = CallEvent(
        "never_arrived",
        CallStatus.FAILED,
        datetime.now(UTC),
        detail="The telephony provider does not know this call; it was not dialled again, to be safe. Place a new one",
    )
    return [never_arrived], _AFTER_TROUBLE_SECONDS


def _timed_out(call: LiveCall) -> CallEvent:
    waited_for = "end" if call.status == CallStatus.IN_PROGRESS else "answer"
    return CallEvent(
        "timed_out", CallStatus.TIMED_OUT, datetime.now(UTC), detail=f"No {waited_for} was reported in time"
    )


async def _hang_up(context: Context, call: LiveCall) -> None:
    if not context.provider.capabilities.hangup:
        return
    try:
        await context.provider.hangup(call.ref)
    except ProviderError as error:
        log.warning("hangup_failed", call_id=call.ref.call_id, error=str(error))
