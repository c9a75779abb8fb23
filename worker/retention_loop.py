"""Deletes what is over, every hour, on one calls worker at a time: old logins, rows of dead workers, and recordings
past their retention. Deleting thousands of recordings takes time, so it does not run in the sweep."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import delete, func, select, text

from app import idempotency, retention, usage
from app.engine_models import Worker
from app.health import WORKER_SILENT_SECONDS
from app.models import LoginSession
from worker.context import Context

log = structlog.get_logger()

_EVERY_SECONDS = 3600.0
_LOCK = 0x52696E67
"""Key of the PostgreSQL advisory lock that the deleting worker holds."""

_STAY_OPEN = text("SET LOCAL idle_in_transaction_session_timeout = 0")
"""Also ends the query before it, whose snapshot would keep PostgreSQL from cleaning up."""


async def run(context: Context) -> None:
    """Runs until cancelled."""
    while True:
        try:
            await once(context)
        except Exception as error:
            log.warning("cleaning_failed", error=repr(error))
        await asyncio.sleep(_EVERY_SECONDS)


async def once(context: Context) -> None:
    """Delete once. Does nothing while another worker does it."""
    # A lock of this transaction, which stays open meanwhile. A pooler would lose a lock of the connection.
    async with context.db.transaction() as guard:
        if await guard.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
            await guard.execute(_STAY_OPEN)
            await _clean(context)


async def _clean(context: Context) -> None:
    async with context.db.transaction() as session:
        await session.execute(delete(LoginSession).where(LoginSession.expires_at < func.now() - timedelta(days=1)))
        await idempotency.delete_old(session)
        await usage.delete_old(session)
        silent = func.now() - timedelta(seconds=100 * WORKER_SILENT_SECONDS)
        await session.execute(delete(Worker).where(Worker.seen_at < silent))
    await retention.delete_old_callbacks(context.db, days=context.settings.callback_days)
    days = context.settings.retention_days
    if days is not None:
        deleted = await retention.delete_old(context.db, context.storage, days=days)
        log.info("retention", calls=deleted)
