"""Backups: the tables and the recordings of a running installation, consistent with each other, in one file.

Why this is consistent: all rows are read in one snapshot. A recording is stored before its row is committed, and is
never changed. So whatever row the snapshot has, its recording was there, and is copied afterwards. Only a deletion
(`app.retention`) can come in between. Such a recording is named in the manifest, and is deleted in what is restored.

Why this is no pg_dump: rows as text fit every version of PostgreSQL, and need no program of the right version. They are
loaded into tables of the revision that they were read from, and migrated from there. And nothing that was pending runs
before it is decided what becomes of it: `load` keeps all tasks from the workers until then (`app.settling`).
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from sqlalchemy import Connection, column, func, inspect, literal, select, text
from sqlalchemy import table as sql_table
from sqlalchemy.ext.asyncio import AsyncSession

from app import settling
from app.backup_file import (
    KEY_FILE,
    BackupError,
    BackupWriter,
    Manifest,
    RecordingsContent,
    TableContent,
    read_entries,
)
from app.db import Database
from app.recordings import MAX_BYTES
from app.storage import NoSuchObject, Storage

_NOT_SAVED = frozenset({"alembic_version", "workers", "listeners"})
"""Tables of no use to another installation: its own version, and which processes run."""

_PART_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_LONGEST_SECONDS = 7 * 86400.0
"""For one table. Without it, the timeout of usual statements would count."""

_AS_TEXT = (
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL intervalstyle = 'iso_8601'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
)
"""So that another server reads the same values from what this one writes."""

_IDENTITIES = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND is_identity = 'YES'
"""

_OTHERS = """
SELECT coalesce(nullif(application_name, ''), usename, '?') || coalesce(' from ' || client_addr, '')
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


# Make one


async def dump(
    db: Database,
    storage: Storage | None,
    writer: BackupWriter,
    *,
    version: str,
    secret_key: str,
    secret_key_id: str,
    with_secret_key: bool,
) -> Manifest:
    """Write everything into the file. `storage` None: leave out the recordings.

    Raises `BackupError` if there are no tables, and `StorageError` if the recordings cannot be read.
    """
    if with_secret_key:
        writer.add_bytes(KEY_FILE, secret_key.encode())
    with SpooledTemporaryFile(max_size=_PART_BYTES) as keys:
        async with db.transaction() as session:
            manifest = await _dump_tables(session, writer, keys, version=version, secret_key_id=secret_key_id)
        if storage is not None:
            keys.seek(0)
            manifest.recordings = await dump_recordings(storage, writer, keys)
    manifest.with_secret_key = with_secret_key
    writer.finish(manifest)
    return manifest


async def _dump_tables(
    session: AsyncSession, writer: BackupWriter, keys: IO[bytes], *, version: str, secret_key_id: str
) -> Manifest:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    connection = await session.connection(execution_options=options)
    for setting in _AS_TEXT:
        await session.execute(text(setting))
    columns = await connection.run_sync(_read_columns)
    if "calls" not in columns:
        raise BackupError("The database has no tables of Ringback. Check RINGBACK_DATABASE_URL")
    driver = await _driver(session)
    tables = {}
    for table, names in columns.items():
        parts = _Parts(writer, table)
        done = await driver.copy_from_table(table, columns=names, output=parts.write, timeout=_LONGEST_SECONDS)
        parts.flush()
        tables[table] = TableContent(columns=names, rows=int(done.split()[-1]))

    async def note(lines: bytes) -> None:
        keys.write(lines)

    wanted = "SELECT storage_key, sha256 FROM recordings ORDER BY call_id"
    await driver.copy_from_query(wanted, output=note, timeout=_LONGEST_SECONDS)
    pending = await session.execute(text("SELECT kind, count(*) FROM tasks GROUP BY kind ORDER BY kind"))
    created_at: datetime = (await session.execute(text("SELECT now()"))).scalar_one()
    return Manifest(
        ringback=version,
        revision=(await session.execute(text("SELECT version_num FROM alembic_version"))).scalar_one(),
        created_at=created_at,
        secret_key_id=secret_key_id,
        with_secret_key=False,
        tables=tables,
        pending={kind: count for kind, count in pending},
        recordings=None,
    )


async def _driver(session: AsyncSession) -> Any:
    """asyncpg's connection, in the session's transaction, which has begun."""
    return (await (await session.connection()).get_raw_connection()).driver_connection


def _read_columns(connection: Connection) -> dict[str, list[str]]:
    """The columns of each table, as the database has them. A table comes after those that it refers to."""
    inspector = inspect(connection)
    ordered = [name for name, _ in inspector.get_sorted_table_and_fkc_names() if name is not None]
    return {
        name: [column["name"] for column in inspector.get_columns(name)] for name in ordered if name not in _NOT_SAVED
    }


class _Parts:
    """Writes a table in parts, because an entry of the archive needs its size first."""

    def __init__(self, writer: BackupWriter, table: str) -> None:
        self._writer = writer
        self._table = table
        self._part = bytearray()
        self._count = 0

    async def write(self, rows: bytes) -> None:
        self._part += rows
        if len(self._part) >= _PART_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._part:
            self._count += 1
            self._writer.add_bytes(f"tables/{self._table}/{self._count:06}.copy", bytes(self._part))
            self._part.clear()


async def dump_recordings(storage: Storage, writer: BackupWriter, keys: Iterable[bytes]) -> RecordingsContent:
    """Write the recordings of these lines: storage key, tab, SHA-256. Raises `StorageError`, but not for one that is
    missing."""
    content = RecordingsContent()
    for line in keys:
        key, sha256 = line.decode().rstrip("\n").split("\t")
        try:
            async with storage.local_copy(key) as path:
                with path.open("rb") as file:
                    size = path.stat().st_size
                    if writer.add(key, file, size) != sha256:
                        content.altered.append(key)
        except (NoSuchObject, FileNotFoundError):
            content.missing.append(key)
        else:
            content.count += 1
            content.bytes += size
    return content


# Restore one


async def refuse_if_in_use(db: Database, *, ignore_connections: bool) -> None:
    """Raises `BackupError` if something else is connected to the database, or it holds anything."""
    async with db.transaction() as session:
        others = list(await session.scalars(text(_OTHERS)))
        if others and not ignore_connections:
            raise BackupError(
                f"Somebody else uses the database: {', '.join(sorted(set(others)))}. Stop the API and all workers. If "
                "these are programs that do not belong to Ringback: --ignore-connections"
            )
        for table in await (await session.connection()).run_sync(_read_columns):
            # A migration adds the provider that environment variables configure, which has no kind.
            rows = select(literal(1)).select_from(sql_table(table)).limit(1)
            if table == "providers":
                rows = rows.where(column("kind").is_not(None))
            if await session.scalar(rows):
                raise BackupError(
                    f"The database is not empty: there are rows in {table}. A backup is restored into an empty one. "
                    "Create one, and set RINGBACK_DATABASE_URL. With `ringback up`: choose another RINGBACK_DATA_DIR"
                )


async def load_recordings(storage: Storage, path: Path) -> None:
    """Store every recording of the file. Raises `StorageError`."""
    for name, file in read_entries(path):
        if name.startswith("recordings/"):
            await storage.put(name, _chunks_of(file), max_bytes=MAX_BYTES)


async def load_tables(db: Database, path: Path, manifest: Manifest) -> list[str]:
    """Load every row of the file, in one transaction. The tables are empty, and of the manifest's revision. No worker
    can claim a task of them, until `app.settling` has decided what becomes of it.

    Returns the tables that were left out, because Ringback does not have them.
    """
    async with db.transaction() as session:
        known = await (await session.connection()).run_sync(_read_columns)
        await session.execute(text("TRUNCATE {}".format(", ".join(f'"{table}"' for table in known))))
        driver = await _driver(session)
        for table, parts in groupby(_tables_of(path), key=lambda part: part[0]):
            if table in known:
                columns = manifest.tables[table].columns
                source = _rows_of(parts)
                await driver.copy_to_table(table, columns=columns, source=source, timeout=_LONGEST_SECONDS)
        await settling.hold(session)
        for table, name in (await session.execute(text(_IDENTITIES))).all():
            newest = func.coalesce(select(func.max(column(name))).select_from(sql_table(table)).scalar_subquery(), 1)
            await session.execute(select(func.setval(func.pg_get_serial_sequence(table, name), newest)))
    return [table for table in manifest.tables if table not in known]


def _tables_of(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Each part of a table, with the table's name. No other entry comes before or between them but the key."""
    for name, file in read_entries(path):
        if name == KEY_FILE:
            continue
        if not name.startswith("tables/"):
            return
        yield name.split("/")[1], file


async def _rows_of(parts: Iterable[tuple[str, IO[bytes]]]) -> AsyncIterator[bytes]:
    for _, file in parts:
        async for chunk in _chunks_of(file):
            yield chunk


async def _chunks_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def find_secret_key(path: Path) -> str | None:
    """The secret key in the file, where it is the first entry."""
    name, file = next(read_entries(path))
    return file.read().decode() if name == KEY_FILE else None
