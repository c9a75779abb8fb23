"""Alembic's entry. Run it as `ringback migrate`; several at once wait for each other."""

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app import audit, engine_models, rule_models, speech_models  # noqa: F401  # their tables belong to the metadata
from app.models import Base
from app.settings import get_settings

_LOCK = 0x52494E47  # "RING": any number that only we use
_PAUSE_SECONDS = 0.2


def _migrate(connection: Connection) -> None:
    # Several at once try in turn, because PostgreSQL builds an index beside running calls only if no statement waits.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
        connection.rollback()
        time.sleep(_PAUSE_SECONDS)
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    url = context.config.attributes.get("url") or get_settings().database_url
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(_run())
