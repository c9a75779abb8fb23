"""Finds the tasks that no hint brought to a worker, and runs them.

PostgreSQL decides what there is to do. A hint can be lost: Valkey is flushed, killed or away, arq is deaf or its queue
is full of what is no job, a worker dies with a task. All of these show as a due task that nobody has. The sweep claims
such tasks by itself, so that they need neither Valkey nor arq. The first moment is left to arq, which is faster.
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
"""A task is arq's alone for this long after it was due. arq's share of that is usually a tenth."""

_PAUSE_SECONDS = 0.1
_LONGEST_CLAIM_SECONDS = 60.0


class Sweep:
    """One worker's, over its own queue."""

    def __init__(self, context: Context, queue: Queue, slots: Slots) -> None:
        self._context = context
        self._queue = queue
        self._slots = slots

    async def run(self, every: float) -> None:
        """Runs until cancelled: every so many seconds, and sooner while there is more. A database that is away is
        waited for."""
        while True:
            more = False
            try:
                more = await self.once()
            except Exception as error:
                log.warning("sweep_failed", error=repr(error))
            if more:
                await asyncio.sleep(min(_PAUSE_SECONDS, every))  # a full worker does not ask for each task that ends
                with suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await self._slots.wait()
            else:
                await asyncio.sleep(every)

    async def once(self) -> bool:
        """Start overdue tasks in half of the free slots. Returns whether there may be more of them."""
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
