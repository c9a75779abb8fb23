"""The way to PostgreSQL: one engine per process, and sessions whose opener commits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

_AWAY = (
    OSError,
    TimeoutError,
    OperationalError,
    InterfaceError,
    DisconnectionError,
)  # asyncpg lets a refused connection out unwrapped
_AWAY_STATES = ("08", "53", "57P")
"""SQLSTATEs of a PostgreSQL that cannot serve now: connection, resources, shutting down or starting up."""


class Database:
    """Two small pools: one whose connections commit each statement by themselves, one for transactions.

    A process holds at most 2 × `pool_size` connections, and keeps them: opening one costs more than fifty polls.
    """

    def __init__(self, url: str, *, pool_size: int = 16) -> None:
        # Setting autocommit on a connection each time it is taken, or pinging it first, would double what a poll costs.
        self._statements = _engine(url, pool_size, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        self._transactions = _engine(url, pool_size)
        self._sessions = async_sessionmaker(self._transactions, expire_on_commit=False)

    def statement(self) -> AsyncConnection:
        """For `async with`: a connection for single statements, each a transaction of its own. The cheapest way in."""
        return self._statements.connect()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits when the block ends and rolls back when it raises."""
        async with self._sessions.begin() as session:
            yield session

    async def dispose(self) -> None:
        await self._statements.dispose()
        await self._transactions.dispose()


def _engine(url: str, pool_size: int, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={
            "timeout": 5,
            "command_timeout": 30,
            # Our statements find rows by key, whatever the values: planning each anew would cost more than running it.
            "server_settings": {"plan_cache_mode": "force_generic_plan", "jit": "off"},
        },
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _drop_if_closed)
    return engine


def _drop_if_closed(connection: Any, record: Any, proxy: Any) -> None:
    """A connection that PostgreSQL has closed, in a restart, is replaced before anybody meets it. asyncpg knows without
    asking the server."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


def is_unreachable(error: BaseException) -> bool:
    """Whether this error means that PostgreSQL is away or cannot serve now, rather than that a statement is wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(error, _AWAY) or str(getattr(cause, "sqlstate", None)).startswith(_AWAY_STATES)
