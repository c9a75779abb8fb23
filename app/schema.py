"""Which migration the database's tables have, and whether this version of Ringback can use them.

It can use newer ones. During an upgrade the tables change first, and processes of the version before go on meanwhile.
It cannot use older ones. So a process that is started too early waits for `ringback migrate`.
"""

import asyncio
from pathlib import Path

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import Database

log = structlog.get_logger()

_FOLDER = Path(__file__).parents[1] / "migrations/versions"
REVISIONS = sorted(file.name.partition("_")[0] for file in _FOLDER.glob("[0-9]*.py"))
"""The migrations that this version knows. It needs the last one."""

_STORED = text("SELECT version_num FROM alembic_version")
_NO_SUCH_TABLE = "42P01"
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 1.0


async def find_problem(connection: AsyncConnection) -> str | None:
    """Why this version cannot use the tables, and what to do. None: it can. The connection is for single statements."""
    try:
        stored = (await connection.execute(_STORED)).scalar()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NO_SUCH_TABLE:
            raise
        stored = None
    if stored is None:
        return "the database has no tables: run `ringback migrate`"
    if stored in REVISIONS[:-1]:
        return f"the tables are of migration {stored}, and {REVISIONS[-1]} is needed: run `ringback migrate`"
    return None


async def wait_until_usable(db: Database, *, and_reachable: bool) -> None:
    """Return when this version can use the tables. With `and_reachable`, also wait for a database that is away."""
    said = None
    while True:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), db.statement() as connection:
                problem = await find_problem(connection)
        except Exception as error:  # the database is away, or cannot be used for another reason
            if not and_reachable:
                return
            problem = repr(error)
        if problem is None:
            return
        if problem != said:
            log.warning("waiting_for_database", problem=problem)
            said = problem
        await asyncio.sleep(_PAUSE_SECONDS)
