"""Writes to the database that this worker lives. `app.health` reads it."""

import asyncio
import socket
from uuid import UUID

import structlog
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert

from app.db import Database
from app.engine_models import Queue, Worker

log = structlog.get_logger()

_BEAT_SECONDS = 1.0
_LONGEST_BEAT_SECONDS = 30.0


class Heartbeat:
    """The heartbeat of one worker."""

    def __init__(self, db: Database, queue: Queue, worker_id: UUID) -> None:
        self._db = db
        self._queue = queue
        self._worker_id = worker_id

    async def run(self) -> None:
        """Runs until cancelled. While the database is away it waits."""
        while True:
            try:
                async with asyncio.timeout(_LONGEST_BEAT_SECONDS):
                    await self.once()
            except Exception as error:
                log.warning("heartbeat_failed", error=repr(error))
            await asyncio.sleep(_BEAT_SECONDS)

    async def once(self) -> None:
        """Write the worker's row, or update its time."""
        beating = (
            insert(Worker)
            .values(id=self._worker_id, queue=self._queue, host=socket.gethostname())
            .on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()})
        )
        async with self._db.statement() as connection:
            await connection.execute(beating)

    async def leave(self) -> None:
        """Remove the row, because the worker stops."""
        async with self._db.statement() as connection:
            await connection.execute(delete(Worker).where(Worker.id == self._worker_id))
