"""Dial the customer, for an agent who waits. As with the agent's leg: at most once."""

import asyncio
from datetime import UTC, datetime
from time import monotonic

import structlog

from app import calls, dial_attempts, tasks
from app.tasks import ClaimedTask
from app.telephony.base import CallEvent, CallStatus, Leg, Rejected, Unknown
from worker.context import Context
from worker.dial import STALE_SECONDS
from worker.telemetry import asked

log = structlog.get_logger()

_LET_EVENTS_ARRIVE_SECONDS = 1.0
"""The provider mostly refuses because the agent has just hung up. The event of that hangup says more than the
refusal."""


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
        await asyncio.sleep(_LET_EVENTS_ARRIVE_SECONDS)
        refused = CallEvent("rejected", CallStatus.FAILED, datetime.now(UTC), leg=Leg.CUSTOMER, detail=result.reason)
        async with context.db.transaction() as session:
            await calls.apply_events(
                session, task.call_id, [refused], max_call_seconds=context.settings.max_call_seconds
            )
    elif isinstance(result, Unknown):
        log.warning("connect_unanswered", call_id=task.call_id, reason=result.reason)  # tracking asks
