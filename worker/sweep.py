"""What every worker does beside its tasks: says that it lives, and finds what was lost.

A hint can be lost (Valkey flushed, killed or away), and a worker can die with a task. Both show as a due task that
nobody has, and are hinted again.
"""

import asyncio
import socket
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert

from app import tasks
from app.models import Queue, Worker
from app.tasks import AddedTask
from worker.context import Context

log = structlog.get_logger()

_AT_ONCE = 500
_LONGEST_PAUSE_SECONDS = 300


class Sweep:
    """One worker's sweep over its own queue."""

    def __init__(self, context: Context, queue: Queue, worker_id: UUID) -> None:
        self._context = context
        self._db = context.db
        self._hints = context.hints
        self._queue = queue
        self._worker_id = worker_id
        # Task and attempt -> how often it was hinted here, and when to do so again. A task may well be overdue because
        # its queue is long; hinting it at growing intervals keeps copies of its job few, and still frees a task whose
        # job was lost inside arq (a worker killed between taking the job and claiming the task).
        self._hinted: dict[tuple[int, int], tuple[int, float]] = {}

    async def run(self, every: float) -> None:
        """Until cancelled, every so many seconds. A database that is away is waited for."""
        while True:
            try:
                await self.once()
            except Exception as error:
                log.warning("sweep_failed", error=repr(error))
            await asyncio.sleep(every)

    async def once(self) -> None:
        await self._beat()
        overdue = await tasks.overdue(self._db, self._queue, limit=_AT_ONCE)
        known, self._hinted = self._hinted, {}
        for task in overdue:
            self._hinted[task.id, task.attempts] = self._hint_if_time(task, known.get((task.id, task.attempts)))

    def _hint_if_time(self, task: AddedTask, before: tuple[int, float] | None) -> tuple[int, float]:
        times, due = before or (0, 0.0)
        if monotonic() < due:
            return times, due
        self._hints.send(task, repetition=times)
        return times + 1, monotonic() + min(5 * 2**times, _LONGEST_PAUSE_SECONDS)

    async def _beat(self) -> None:
        beating = (
            insert(Worker)
            .values(id=self._worker_id, queue=self._queue, host=socket.gethostname())
            .on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()})
        )
        async with self._db.statement() as connection:
            await connection.execute(beating)

    async def leave(self) -> None:
        """This worker stops and is not to be counted any more."""
        async with self._db.statement() as connection:
            await connection.execute(delete(Worker).where(Worker.id == self._worker_id))
