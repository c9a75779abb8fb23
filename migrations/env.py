"""Alembic's entry. Run it as `ringback migrate`; several at once wait for each other.

A migration runs beside calls, and must not make them wait. A statement that waits for a lock makes all statements wait
that come after it. So it gives up after half a second. Its migration is rolled back and tried again. Statements in an
`autocommit_block`, such as CREATE INDEX CONCURRENTLY, wait for as long as they must, because nobody waits for them.
"""

import asyncio
import time

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app import audit, engine_models, rule_models, speech_models  # noqa: F401  # their tables belong to the metadata
from app.db import UNNAMED_STATEMENTS
from app.models import Base
from app.settings import get_settings

_LOCK = 0x52494E47  # "RING": any number that only we use
_NAME = "ringback migrate"
_PAUSE_SECONDS = 0.2
# Shorter than PostgreSQL's deadlock_timeout of 1 s. So a migration that meets calls in a deadlock ends first.
_LOCK_TIMEOUT = "500ms"
_PATIENCE_SECONDS = 120.0
_RETRY_SECONDS = 2.0
"""Those who waited for the migration get their turn meanwhile."""
_BLOCKED_STATES = ("55P03", "40P01")  # lock_not_available, deadlock_detected


async def _wait_for_turn(guard: AsyncConnection) -> None:
    """Several at once try in turn, because PostgreSQL builds an index beside running calls only if no statement waits.

    The lock belongs to a transaction that stays open, so that it also works through a pooler.
    """
    while True:
        if await guard.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}):
            # Also ends the query before it, whose snapshot would make the building of an index wait for ever.
            await guard.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            return
        await guard.rollback()
        await asyncio.sleep(_PAUSE_SECONDS)


def _migrate(connection: Connection) -> None:
    @event.listens_for(connection, "begin")
    def limit_waiting(begun: Connection) -> None:
        if begun.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            begun.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")

    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        transaction_per_migration=True,  # so that no lock outlasts its migration
    )
    patience = context.config.attributes.get("patience_seconds", _PATIENCE_SECONDS)
    deadline, said_so = time.monotonic() + patience, False
    while True:
        try:
            with context.begin_transaction():
                context.run_migrations()
            return
        except DBAPIError as error:
            connection.rollback()
            if getattr(error.orig, "sqlstate", None) not in _BLOCKED_STATES:
                raise
            if time.monotonic() > deadline:
                raise CommandError(
                    f"A table stays locked by other transactions, which began: {_list_blocking(connection)}. Nothing of "
                    "this migration was changed. End them, and run `ringback migrate` again"
                ) from error
        if not said_so:
            print("Another transaction has locked a table. Trying again, up to 2 minutes …", flush=True)  # noqa: T201
            said_so = True
        time.sleep(_RETRY_SECONDS)


def _list_blocking(connection: Connection) -> str:
    """The oldest open transactions, for a person."""
    open_ones = text(
        "SELECT format('%s (process %s, %s)', date_trunc('second', xact_start), pid, state) FROM pg_stat_activity "
        "WHERE xact_start IS NOT NULL AND application_name <> :ours AND datname = current_database() "
        "ORDER BY xact_start LIMIT 3"
    )
    return "; ".join(connection.scalars(open_ones, {"ours": _NAME})) or "it is not known when"


async def _run() -> None:
    url = context.config.attributes.get("url") or get_settings().database_url
    connecting = {**UNNAMED_STATEMENTS, "server_settings": {"application_name": _NAME}}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=connecting)
    try:
        async with engine.connect() as guard, engine.connect() as connection:
            await _wait_for_turn(guard)
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


def _print_sql() -> None:
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _print_sql()
else:
    asyncio.run(_run())
