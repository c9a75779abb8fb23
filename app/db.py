"""Access to PostgreSQL. `Database.transaction` is the only way to open a transaction."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, ParamSpec

import asyncpg
from sqlalchemy import ExceptionContext, event
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.sql import ClauseElement
from sqlalchemy.util import greenlet_spawn

_AWAY = (
    OSError,  # asyncpg does not wrap the error of a refused connection
    TimeoutError,
    OperationalError,
    InterfaceError,
    DisconnectionError,
    PoolTimeout,
)
_READ_ONLY = "25006"
_AWAY_STATES = ("08", "53", "57P", _READ_ONLY)
"""SQLSTATEs of a PostgreSQL that cannot serve now: connection lost, out of resources, stopping or starting, or not the
primary any more."""


UNNAMED_STATEMENTS = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
"""Arguments of a connection that leaves nothing behind in PostgreSQL between transactions. A pooler gives each
transaction another connection, where the name of a prepared statement would be unknown, or that of another."""

# The statements find rows by key, whatever the values. Planning each call would cost more than running it.
_DIRECTLY = {"server_settings": {"plan_cache_mode": "force_generic_plan", "jit": "off"}}

POOL_SIZE = 16
"""Connections of each pool of an API process."""

_POOL_SECONDS = 10
"""How long a statement may wait for a connection."""

_COMMAND_SECONDS = 20
"""How long a statement may take. After that, the connection to a PostgreSQL that is frozen is given up."""

P = ParamSpec("P")
_AFTER_COMMIT = "after_commit"


class Compiled:
    """A statement for `Database.fetch_one`, compiled once."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=dialect())  # type: ignore[no-untyped-call]
        self.sql = str(compiled)
        self.names: list[str] = compiled.positiontup


class _KeptConnections:
    """Connections of a pool that are kept for single statements, which run directly in the driver.

    It is what the server does most. SQLAlchemy would take more than twice the CPU of a statement, and borrowing a
    connection each time as much again (docs/benchmarks.md).
    """

    def __init__(self, pool: AsyncEngine, most: int) -> None:
        self._pool = pool
        self._most = most
        self._idle: list[Any] = []
        self._turns = asyncio.Semaphore(max(1, most))
        self._driver_error: type[Exception] = pool.dialect.loaded_dbapi.Error

    async def fetch(self, sql: str, values: list[Any]) -> list[asyncpg.Record]:
        """As `Database.fetch_all`."""
        if self._turns.locked():
            async with asyncio.timeout(_POOL_SECONDS):
                await self._turns.acquire()
        else:
            await self._turns.acquire()
        try:
            connection = self._idle.pop() if self._idle else await self._borrow()
            driver = connection.driver_connection
            if driver.is_closed():  # by a restart of PostgreSQL, and so are all
                await self._drop(connection)
                connection = await self._borrow()
                driver = connection.driver_connection
            try:
                rows: list[asyncpg.Record] = await driver.fetch(sql, *values)
            except (asyncio.CancelledError, TimeoutError):
                # The statement still runs. Only invalidating the connection cancels it.
                await greenlet_spawn(connection.invalidate)
                raise
            except Exception as error:
                closed = driver.is_closed()
                if closed or getattr(error, "sqlstate", None) == _READ_ONLY:
                    await self._drop(connection)
                else:
                    self._keep(connection)
                if closed:
                    raise DisconnectionError(str(error)) from error
                raise
            self._keep(connection)
            return rows
        finally:
            self._turns.release()

    async def _borrow(self) -> Any:
        try:
            return await self._pool.raw_connection()
        except self._driver_error as error:
            raise DBAPIError.instance(None, None, error, self._driver_error) from error

    def _keep(self, connection: Any) -> None:
        if len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()

    async def _drop(self, connection: Any) -> None:
        """Replace it and all that are idle. They lead to the same server."""
        idle, self._idle = self._idle, []
        for one in (connection, *idle):
            await greenlet_spawn(one.invalidate)

    def close(self) -> None:
        """Give them back to the pool."""
        idle, self._idle, self._most = self._idle, [], 0
        for connection in idle:
            connection.close()


class Database:
    """Two small pools: one for single statements, which commit by themselves, and one for transactions.

    A process holds at most 2 × `pool_size` connections and keeps them, because opening one costs more than fifty polls.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        pooler: Literal["transaction"] | None = None,
        after_commit: Callable[[AsyncSession], None] | None = None,
    ) -> None:
        """`after_commit` is called with the session of every transaction that was committed. With a `pooler`, the URL
        is that of a pooler that gives each transaction another connection."""
        connecting = _DIRECTLY if pooler is None else UNNAMED_STATEMENTS
        # Setting autocommit or pinging at every checkout would double the cost of a poll.
        self._statements = _engine(url, pool_size, connecting, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        self._kept = _KeptConnections(self._statements, pool_size // 2)
        self._transactions = _engine(url, pool_size, connecting)
        self._after_commit = after_commit
        self._sessions = async_sessionmaker(self._transactions, expire_on_commit=False)

    def statement(self) -> AsyncConnection:
        """A connection for single statements, each its own transaction. Use with `async with`."""
        return self._statements.connect()

    async def fetch_one(self, statement: Compiled, values: Mapping[str, Any]) -> asyncpg.Record | None:
        """As `fetch_all`, of a statement with one row at most."""
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_all(self, statement: Compiled, values: Mapping[str, Any]) -> list[asyncpg.Record]:
        """Run one statement as its own transaction, and return its rows.

        Raises what asyncpg raises, and `DisconnectionError` when the connection broke.
        """
        return await self._kept.fetch(statement.sql, [values[name] for name in statement.names])

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end of the block, and rolls back if the block raises."""
        async with self._sessions.begin() as session:
            yield session
        if self._after_commit is not None:
            self._after_commit(session)
        for act in session.info.pop(_AFTER_COMMIT, ()):
            act()

    async def dispose(self) -> None:
        self._kept.close()
        await self._statements.dispose()
        await self._transactions.dispose()


def after_commit(session: AsyncSession, act: Callable[P, None], *arguments: P.args, **options: P.kwargs) -> None:
    """Do this once the session has committed, and not if it is rolled back. It must not raise."""
    session.info.setdefault(_AFTER_COMMIT, []).append(partial(act, *arguments, **options))


def _engine(url: str, pool_size: int, connecting: Mapping[str, Any], **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        hide_parameters=True,  # errors are logged, and the parameters are telephone numbers and password hashes
        connect_args={
            "timeout": 5,
            "command_timeout": _COMMAND_SECONDS,
            **connecting,
        },
        **options,
    )
    event.listen(engine.sync_engine, "connect", _notice_lost_hosts)
    event.listen(engine.sync_engine, "checkout", _drop_if_closed)
    event.listen(engine.sync_engine, "handle_error", _leave_replica)
    return engine


def _notice_lost_hosts(connection: Any, record: Any) -> None:
    """Let the operating system close the connection when its host vanishes, in a failover say. By default it would take
    hours if it is idle, and a quarter of an hour in a request."""
    opened = connection.driver_connection._transport.get_extra_info("socket")  # there is no public way
    if opened.family == socket.AF_UNIX:
        return
    options = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 15_000}
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):  # macOS has some of them
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leave_replica(context: ExceptionContext) -> None:
    """Replace all connections when PostgreSQL turns out to be a replica. The primary is elsewhere now, at the same
    address."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _drop_if_closed(connection: Any, record: Any, proxy: Any) -> None:
    """Replace a connection that PostgreSQL closed in a restart, before anybody uses it. asyncpg knows without asking
    the server."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


def is_unreachable(error: BaseException) -> bool:
    """Whether the error means that PostgreSQL is away or cannot serve now, and not that a statement is wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(getattr(cause, "__cause__", None), asyncpg.TargetServerAttributeNotMatched):  # no host is the primary
        return True
    return isinstance(error, _AWAY) or str(getattr(cause, "sqlstate", None)).startswith(_AWAY_STATES)
