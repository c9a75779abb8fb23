"""Dial the customer, for an agent who waits. As with the agent's leg: at most once."""

from datetime import UTC, datetime
from time import monotonic

import structlog

from app import call_lookups, calls, dial_attempts, tasks
from app.call_state import TERMINAL
from app.tasks import ClaimedTask
from app.telephony.base import CallEvent, CallStatus, Leg, ProviderError, Rejected, TelephonyProvider, Unknown
from worker.context import Context
from worker.dial import STALE_SECONDS
from worker.telemetry import asked

log = structlog.get_logger()


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.providers.use(task.provider) as provider:
        async with context.db.transaction() as session:
            await tasks.finish(session, task)
            order = await dial_attempts.claim_connect(session, task.call_id, context.settings, context.provider_links)
            spent_at = monotonic()
        if order is None:
            return
        if monotonic() - spent_at > STALE_SECONDS:
            log.warning("connect_not_sent", call_id=task.call_id, reason="this process was frozen")
            return
        result = await asked(task.provider, "connect", provider.connect(order))
        if isinstance(result, Rejected):
            await _rejected(context, task, provider, result)
        elif isinstance(result, Unknown):
            log.warning("connect_unanswered", call_id=task.call_id, reason=result.reason)  # tracking asks


async def _rejected(context: Context, task: ClaimedTask, provider: TelephonyProvider, result: Rejected) -> None:
    if await _is_over(context, task, provider):
        # The agent has just hung up. The event of that is on its way, and says more than the refusal. If it never
        # comes, tracking ends the call.
        log.info("connect_too_late", call_id=task.call_id, reason=result.reason)
        return
    refused = CallEvent("rejected", CallStatus.FAILED, datetime.now(UTC), leg=Leg.CUSTOMER, detail=result.reason)
    async with context.db.transaction() as session:
        await calls.apply_events(session, task.call_id, [refused], max_call_seconds=context.settings.max_call_seconds)


async def _is_over(context: Context, task: ClaimedTask, provider: TelephonyProvider) -> bool:
    """Whether the agent is no longer on the line, as far as the provider says."""
    async with context.db.transaction() as session:
        ref = await call_lookups.get_ref(session, task.call_id)
    try:
        snapshot = await asked(task.provider, "fetch", provider.fetch(ref))
    except ProviderError:
        return False  # nothing is known but the refusal
    return snapshot is None or any(event.status in TERMINAL for event in snapshot.events)
