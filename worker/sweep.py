"""Finds tasks that no hint brought to a worker, and runs them.

PostgreSQL decides what there is to do. Hints can be lost: when Valkey is flushed, killed or away, when arq does not
read its queue, when the queue is full of foreign jobs, or when a worker dies. In each case there is a due task without
a claim. The sweep claims such tasks without Valkey and arq. It leaves new tasks to arq for a moment, because arq is
faster.
"""

import asyncio
from contextlib import suppress

import structlog

from app import tasks
from app.models import Queue
from worker.context import Context
from worker.runner import run_claimed
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
            more = False
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
                await asyncio.sleep(every)

    async def once(self) -> bool:
        """Start overdue tasks in half of the free slots. Returns whether there may be more."""
        reserved = self._slots.reserve()
        if not reserved:
            return True
        try:
            async with asyncio.timeout(_LONGEST_CLAIM_SECONDS):
                claimed = await tasks.claim_overdue(
                    self._context.db,
                    self._queue,
                    limit=reserved,
                    overdue_seconds=HEAD_START_SECONDS,
                    lease_seconds=self._context.settings.lease_seconds,
                )
        finally:
            self._slots.release(reserved)
        for task in claimed:
            self._slots.start(run_claimed(self._context, task))
        return len(claimed) == reserved
