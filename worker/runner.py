"""Runs a task: claims it, keeps its lease, does the work, and handles a failure."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import structlog

from app import calls, lanes, metrics, tasks, transcripts
from app.db import after_commit, is_unreachable
from app.engine_models import TaskKind
from app.outbound import OutboundError
from app.storage import StorageError
from app.tasks import ClaimedTask, LeaseLost, dial_lane
from app.telephony.base import CallEvent, CallStatus, ProviderError
from app.transcription.base import TranscriptionError
from worker import connect, deliver, dial, fetch_recording, hangup, track, transcribe
from worker.context import Context
from worker.telemetry import Attempt, attempt

log = structlog.get_logger()


async def _fail_call(context: Context, task: ClaimedTask, reason: str) -> None:
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        given_up = CallEvent("given_up", CallStatus.FAILED, datetime.now(UTC), detail=reason)
        await calls.apply_events(session, task.call_id, [given_up], max_call_seconds=context.settings.max_call_seconds)


async def _give_up_hangup(context: Context, task: ClaimedTask, reason: str) -> None:
    log.error("left_at_the_provider", call_id=task.call_id, reason=reason)
    async with context.db.transaction() as session:
        await tasks.finish(session, task)


async def _fail_transcript(context: Context, task: ClaimedTask, reason: str) -> None:
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        await transcripts.fail(session, task.call_id, reason)
        after_commit(session, metrics.transcript_failed)


async def _deliver_later(context: Context, task: ClaimedTask, reason: str) -> None:
    """The schedule of the callbacks decides when they fail. This failure is on our side only."""
    log.error("callbacks_not_sent", call_id=task.call_id, reason=reason)
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        await tasks.add(session, TaskKind.DELIVER, task.call_id, delay=60)


_READABLE_ERRORS = (ProviderError, StorageError, OutboundError, TranscriptionError)
"""Errors whose texts clients may read. The texts of other errors go to the log only."""

_UNEXPECTED = "Something went wrong on the server, several times. Its log has more under the call's id"


@dataclass(frozen=True, slots=True)
class _Handler:
    """How to do one kind of task, the pauses after failed attempts, and what to do after the last one."""

    run: Callable[[Context, ClaimedTask], Awaitable[None]]
    give_up: Callable[[Context, ClaimedTask, str], Awaitable[None]]
    delays: tuple[float, ...]
    longest: float = math.inf
    """Seconds since the task was added. After that, no other attempt starts."""


HANDLERS: dict[TaskKind, _Handler] = {
    TaskKind.DIAL: _Handler(dial.run, _fail_call, (0.5, 1, 2, 5, 10, 20, 30)),
    TaskKind.CONNECT: _Handler(connect.run, _fail_call, (0.5, 1, 2, 5, 10)),
    TaskKind.TRACK: _Handler(track.run, _fail_call, (1, 1, 2, 5, 10, 20, 30)),
    TaskKind.HANGUP: _Handler(hangup.run, _give_up_hangup, (0.2, 0.5, 1, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)),
    # docs/recordings.md describes this schedule.
    TaskKind.FETCH_RECORDING: _Handler(
        fetch_recording.run,
        fetch_recording.give_up,
        (1, 2, 5, 10, 15, 30, 30, 30, 60, 60, 60, 300, 600, 600, 1800),
        longest=fetch_recording.LONGEST_SECONDS,
    ),
    TaskKind.DELIVER: _Handler(deliver.run, _deliver_later, (1, 2, 5, 10, 30, 60)),
    TaskKind.TRANSCRIBE: _Handler(transcribe.run, _fail_transcript, (2, 10, 30, 120)),
}


async def run_task(context: Context, task_id: int, lane: str | None = None) -> None:
    """Do the task if it is due and unclaimed. For a task in a lane: do the one whose turn it is. Raises nothing but
    cancellation."""
    try:
        if lane is None:
            task = await tasks.claim(context.db, task_id, lease_seconds=context.settings.lease_seconds)
        else:
            task = next(iter(await claim_in_lane(context, lane, limit=1)), None)
    except Exception as error:
        log.warning("claim_failed", task_id=task_id, lane=lane, error=repr(error))
        return
    if task is not None:
        await run_claimed(context, task)


async def claim_in_lane(
    context: Context, lane: str, *, limit: int, overdue_seconds: float | None = None
) -> list[ClaimedTask]:
    """Claim up to `limit` tasks of the lane, as its gate allows. `overdue_seconds` leaves newer ones to arq, but not at
    a gate, because hints are dropped there."""
    if context.gates.is_shut(lane):
        return []
    lease_seconds = context.settings.lease_seconds
    gated = next((name for name in await _gated(context) if dial_lane(name) == lane), None)
    if gated is None:
        claim = await lanes.claim(
            context.db, lane, limit=limit, lease_seconds=lease_seconds, overdue_seconds=overdue_seconds
        )
    else:
        claim = await lanes.claim_through_gate(context.db, gated, limit=limit, lease_seconds=lease_seconds)
    if claim.shut_seconds > 0:
        context.gates.shut(lane, claim.shut_seconds)
    return claim.tasks


async def _gated(context: Context) -> list[str]:
    return [name for name, config in (await context.providers.configs()).items() if config.is_gated]


async def run_claimed(context: Context, task: ClaimedTask) -> None:
    """Do a task that this worker has claimed. Raises nothing but cancellation."""
    work, began = HANDLERS[task.kind], monotonic()
    of_task = {"call_id": task.call_id, "task": task.kind, "attempt": task.attempts}
    with structlog.contextvars.bound_contextvars(**of_task), attempt(task) as attempted:
        try:
            if task.attempts > len(work.delays) + 1:  # its workers died during the task, each time
                attempted.result = "given_up"
                await work.give_up(context, task, "The worker stopped in the middle of this, several times")
                return
            async with _keep_lease(context, task):
                await work.run(context, task)
        except LeaseLost:
            attempted.result = "lease_lost"
            log.warning("lease_lost")
        except Exception as error:
            await _after_failure(context, task, work, error, monotonic() - began, attempted)


async def _after_failure(
    context: Context, task: ClaimedTask, work: _Handler, error: Exception, seconds: float, attempted: Attempt
) -> None:
    """Retry the task, or give it up. `seconds` is how long the failed attempt took."""
    expected = isinstance(error, _READABLE_ERRORS)
    log.warning("task_failed", error=repr(error), exc_info=not expected and not is_unreachable(error))
    pause = _pause_before_retry(work, task, error, task.age_seconds + seconds)
    attempted.result = "given_up" if pause is None else "retried"
    try:
        if pause is None:
            await work.give_up(context, task, str(error) if expected else _UNEXPECTED)
        else:
            async with context.db.transaction() as session:
                await tasks.retry_later(session, task, delay=pause, error=repr(error))
    except LeaseLost:  # or the task was finished before the error
        attempted.result = "failed"
        log.warning("lease_lost")
    except Exception as again:  # the database is away: the lease runs out, and the sweep finds the task
        log.warning("task_left_to_the_sweep", error=repr(again))


def _pause_before_retry(work: _Handler, task: ClaimedTask, error: Exception, age: float) -> float | None:
    """The pause before the next attempt, in seconds. None: there is no other attempt."""
    tries = len(work.delays) + 1
    retry_after = 0.0
    if isinstance(error, OutboundError):
        tries = min(tries, error.tries or tries)
        retry_after = min(error.retry_after, work.longest - age)
    if task.attempts >= tries:
        return None
    pause = max(work.delays[task.attempts - 1], retry_after)
    return pause if age + pause <= work.longest else None


@asynccontextmanager
async def _keep_lease(context: Context, task: ClaimedTask) -> AsyncIterator[None]:
    """Renew the lease until the block ends. A lost lease is noticed by `tasks.finish`."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(context.settings.lease_seconds / 3)
            try:
                if not await tasks.renew(context.db, task, lease_seconds=context.settings.lease_seconds):
                    return
            except Exception as error:
                log.warning("lease_not_renewed", error=repr(error))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
