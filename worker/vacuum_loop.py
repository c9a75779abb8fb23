"""Cleans the table of tasks every few seconds, while much goes through it.

Tasks live for a second or two. Claims read their dead rows, the oldest first, until a vacuum removes them, and
autovacuum looks once a minute. At 500 tasks a second a claim took six times as long by then (docs/benchmarks.md).
"""

import asyncio

import structlog
from sqlalchemy import text

from app.db import Database
from worker.context import Context

log = structlog.get_logger()

EVERY_SECONDS = 5.0
_DEAD_ROWS = 2000
_LOOK = text("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tasks'")
# Without waiting for another worker that does it, and without the lock that giving space back would take.
_VACUUM = text("VACUUM (SKIP_LOCKED, TRUNCATE OFF, INDEX_CLEANUP ON) tasks")


async def run(context: Context) -> None:
    """Runs until cancelled."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await once(context.db)
        except Exception as error:
            log.warning("vacuum_failed", error=repr(error))


async def once(db: Database) -> bool:
    """Vacuum the table of tasks, if many of its rows are dead. Returns whether they were."""
    async with db.statement() as connection:
        if (await connection.scalar(_LOOK) or 0) < _DEAD_ROWS:
            return False
        await connection.execute(_VACUUM)
        return True
