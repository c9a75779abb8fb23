"""The way to PostgreSQL: one engine per process, and sessions whose opener commits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

_AWAY = (OSError, TimeoutError, OperationalError, InterfaceError)  # asyncpg lets a refused connection out unwrapped
_AWAY_STATES = ("08", "53", "57P")
"""SQLSTATEs of a PostgreSQL that cannot serve now: connection, resources, shutting down or starting up."""


class Database:
    """Holds the engine. `reading` is for single statements, `sessions` for everything else."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"timeout": 5, "command_timeout": 30},
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement that is a transaction of its own. The cheapest way in (docs/benchmarks.md)."""
        async with self._autocommit.connect() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits when the block ends and rolls back when it raises."""
        async with self.sessions.begin() as session:
            yield session

    async def dispose(self) -> None:
        await self.engine.dispose()


def is_unreachable(error: BaseException) -> bool:
    """Whether this error means that PostgreSQL is away or cannot serve now, rather than that a statement is wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(error, _AWAY) or str(getattr(cause, "sqlstate", None)).startswith(_AWAY_STATES)
