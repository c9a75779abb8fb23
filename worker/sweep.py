"""Finds tasks that no hint brought to a worker, and runs them.

PostgreSQL decides what there is to do. Hints can be lost: when Valkey is flushed, killed or away, when arq does not
read its queue, when the queue is full of foreign jobs, or when a worker dies. In each case there is a due task without
a claim. The sweep claims such tasks without Valkey and arq. It leaves new tasks to arq for a moment, because arq is
faster.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic

import structlog

from app import lanes, tasks
from app.engine_models import Queue, TaskKind
from app.tasks import ClaimedTask
from worker.context import Context
from worker.runner import claim_in_lane, run_claimed
from worker.slots import Slots

log = structlog.get_logger()

HEAD_START_SECONDS = 0.5
"""The sweep leaves a task alone for this long after it is due. arq mostly needs a tenth of it."""

_PAUSE_SECONDS = 0.1
_LONGEST_CLAIM_SECONDS = 60.0


class Sweep:
    """The sweep of one worker, over its own queue."""

    def __init__(self, context: Context, queue: Queue, slots: Slots) -> None:
        self._context = context
        self._queue = queue
        self._slots = slots

    async def run(self, every: float) -> None:
        """Runs until cancelled: every `every` seconds, and sooner while there is more to do. While the database is away
        it waits."""
        while True:
            more, began = False, monotonic()
            try:
                more = await self.once()
            except Exception as error:
                log.warning("sweep_failed", error=repr(error))
            if more:
                await asyncio.sleep(min(_PAUSE_SECONDS, every))  # a busy worker does not query for each task that ends
                with suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await self._slots.wait()
            else:
                await self._context.gates.wait(every, since=began)

    async def once(self) -> bool:
        """Start overdue tasks, of each sort in half of the slots that are free then. Returns whether there may be
        more."""
        more = await self._start(self._claim_overdue)
        providers = list(await self._context.providers.configs()) if self._queue is Queue.CALLS else []
        for lane in lanes.lanes_of(self._queue, providers):
            more |= await self._start(partial(self._claim_in_lane, lane))
        if self._queue is Queue.CALLS:
            more |= await self._start(self._claim_too_late)
        return more

    async def _start(self, claim: Callable[[int], Awaitable[list[ClaimedTask]]]) -> bool:
        reserved = self._slots.reserve()
        if not reserved:
            return True
        try:
            async with asyncio.timeout(_LONGEST_CLAIM_SECONDS):
                claimed = await claim(reserved)
        finally:
            self._slots.release(reserved)
        for task in claimed:
            self._slots.start(run_claimed(self._context, task))
        return len(claimed) == reserved

    async def _claim_overdue(self, limit: int) -> list[ClaimedTask]:
        return await tasks.claim_overdue(
            self._context.db,
            self._queue,
            limit=limit,
            overdue_seconds=HEAD_START_SECONDS,
            lease_seconds=self._context.settings.lease_seconds,
        )

    async def _claim_in_lane(self, lane: str, limit: int) -> list[ClaimedTask]:
        return await claim_in_lane(self._context, lane, limit=limit, overdue_seconds=HEAD_START_SECONDS)

    async def _claim_too_late(self, limit: int) -> list[ClaimedTask]:
        """Calls that wait at a gate for too long. Their dial tasks end them."""
        settings = self._context.settings
        return await tasks.claim_overdue(
            self._context.db,
            self._queue,
            limit=limit,
            overdue_seconds=settings.queue_seconds,
            lease_seconds=settings.lease_seconds,
            kind=TaskKind.DIAL,
        )
