"""Dial a call: claim its dial attempt, commit that, and only then send one request."""

from datetime import UTC, datetime
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app import calls, dial_attempts, dial_rules, metrics, tasks
from app.dial_attempts import DialAttempt
from app.engine_models import TaskKind
from app.tasks import ClaimedTask
from app.telephony.base import Accepted, CallEvent, CallStatus, Rejected
from worker.context import Context
from worker.telemetry import asked

log = structlog.get_logger()

STALE_SECONDS = 3.0
"""A process that was frozen for longer than this between the claim and the request must not send it. Meanwhile another
worker may have given the call up."""


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.providers.use(task.provider) as provider:
        async with context.db.transaction() as session:
            # From this commit on, the call is tracked, whatever happens to this process.
            # A provider's gate counts the leases, so a worker that was frozen past its own must not dial.
            await tasks.finish(session, task, in_time=True)
            if await _is_obstructed(context, session, task.call_id):
                return
            attempt = await dial_attempts.claim_dial(
                session,
                task.call_id,
                context.settings,
                context.provider_links,
                track_after=provider.capabilities.poll_seconds,
            )
            spent_at = monotonic()
        if attempt is None:
            return
        if monotonic() - spent_at > STALE_SECONDS:
            log.warning("dial_not_sent", call_id=task.call_id, reason="this process was frozen")
            return  # tracking finds that the provider does not know the call, and ends it
        metrics.call_dialed(task.provider, attempt.call_age_seconds)
        result = await asked(task.provider, "place", provider.place(attempt.order))

    if isinstance(result, Accepted):
        async with context.db.transaction() as session:
            if not await dial_attempts.save_reference(session, attempt, result):
                await tasks.add(session, TaskKind.HANGUP, task.call_id)
    elif isinstance(result, Rejected):
        await _rejected(context, attempt, result)
    else:
        # The request may have arrived. Tracking asks the provider, and nobody dials again.
        log.warning("dial_unanswered", call_id=task.call_id, reason=result.reason)


async def _is_obstructed(context: Context, session: AsyncSession, call_id: str) -> bool:
    """Whether the call must not be dialed now. Then it ends, or waits for calling hours."""
    obstacle = await dial_rules.find_obstacle(session, call_id, context.rules, context.settings)
    if obstacle is None:
        return False
    if obstacle.ends_with is not None:
        await calls.apply_events(session, call_id, [obstacle.ends_with], max_call_seconds=0)
    elif obstacle.opens_at is not None:
        await calls.wait_until(session, call_id, obstacle.opens_at, f"Waits for {obstacle.opens_at:%Y-%m-%d %H:%M} UTC")
        delay = (obstacle.opens_at - datetime.now(UTC)).total_seconds()
        await tasks.add(session, TaskKind.DIAL, call_id, delay=delay)
    return True


async def _rejected(context: Context, attempt: DialAttempt, result: Rejected) -> None:
    settings = context.settings
    async with context.db.transaction() as session:
        if result.retry_after is not None and attempt.call_age_seconds + result.retry_after < settings.queue_seconds:
            await dial_attempts.return_to_queue(session, attempt, result.reason, again_after=result.retry_after)
            return
        rejected = CallEvent("rejected", CallStatus.FAILED, datetime.now(UTC), detail=result.reason)
        await calls.apply_events(session, attempt.order.call_id, [rejected], max_call_seconds=settings.max_call_seconds)
