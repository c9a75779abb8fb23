"""Every hour the calls workers, one at a time, delete what is over: logins, workers that are no more, and what has been
kept for long enough. Beside the sweep and not in it: to delete thousands of recordings may take its time."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import delete, func, select

from app import retention
from app.health import WORKER_SILENT_SECONDS
from app.models import LoginSession, Worker
from worker.context import Context

log = structlog.get_logger()

_EVERY_SECONDS = 3600.0
_LOCK = 0x52696E67
"""Of PostgreSQL's advisory locks, for whoever cleans: a number of our own."""


async def run(context: Context) -> None:
    """Until cancelled."""
    while True:
        try:
            await once(context)
        except Exception as error:
            log.warning("cleaning_failed", error=repr(error))
        await asyncio.sleep(_EVERY_SECONDS)


async def once(context: Context) -> None:
    """Does nothing while another worker is at it."""
    async with context.db.statement() as connection:
        if not (await connection.execute(select(func.pg_try_advisory_lock(_LOCK)))).scalar_one():
            return
        try:
            await _clean(context)
        finally:
            await connection.execute(select(func.pg_advisory_unlock(_LOCK)))


async def _clean(context: Context) -> None:
    async with context.db.transaction() as session:
        await session.execute(delete(LoginSession).where(LoginSession.expires_at < func.now() - timedelta(days=1)))
        silent = func.now() - timedelta(seconds=100 * WORKER_SILENT_SECONDS)
        await session.execute(delete(Worker).where(Worker.seen_at < silent))
    days = context.settings.retention_days
    if days is not None:
        deleted = await retention.delete_old(context.db, context.storage, days=days)
        log.info("retention", calls=deleted)
