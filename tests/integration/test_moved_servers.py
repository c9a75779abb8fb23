"""The primary is elsewhere now, and an open connection leads to what is a replica."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db import Compiled, Database, is_unreachable
from app.errors import TooManyAttempts
from app.hints import arq_pool
from app.settings import Settings
from app.throttle import LoginThrottle
from lab.replicas import MovingAddress, ReplicaPostgres, ReplicaValkey

BACKEND = Compiled(text("SELECT pg_backend_pid() AS pid"))
WRITE = "CREATE TABLE written (id int)"


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[ReplicaPostgres]:
    server = ReplicaPostgres(tmp_path / "postgres")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.kill)


async def execute(db: Database, *statements: str) -> None:
    async with db.statement() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def backend(db: Database) -> int:
    row = await db.fetch_one(BACKEND, {})
    assert row is not None
    return int(row["pid"])


async def test_a_connection_to_a_replica_counts_as_away_and_is_replaced(postgres: ReplicaPostgres) -> None:
    """A server that is read-only answers as a replica does."""
    url = postgres.start()
    db, admin = Database(url, pool_size=1), Database(url, pool_size=1)
    before = await backend(db)
    await execute(admin, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    async with asyncio.timeout(30):
        while not await _refuses_to_write(db):  # until the process has read the configuration
            pass
    assert await backend(db) != before
    before = await backend(db)
    with pytest.raises(DBAPIError) as refused:
        await execute(db, WRITE)
    assert is_unreachable(refused.value)
    assert await backend(db) != before
    with pytest.raises(DBAPIError) as refused:
        async with db.transaction() as session:
            await session.execute(text(WRITE))
    assert is_unreachable(refused.value)
    await db.dispose()
    await admin.dispose()


async def _refuses_to_write(db: Database) -> bool:
    try:
        await db.fetch_one(Compiled(text("CREATE TABLE IF NOT EXISTS written_first (n int)")), {})
    except Exception as error:
        if not is_unreachable(error):
            raise
        return True
    return False


async def test_of_several_servers_in_the_url_the_primary_is_used(tmp_path: Path, postgres: ReplicaPostgres) -> None:
    replica = ReplicaPostgres(tmp_path / "replica")
    await asyncio.to_thread(replica.follow, postgres)
    first, second = MovingAddress(), MovingAddress()
    await first.start(replica.socket)
    await second.start(postgres.socket)
    hosts = f"host=127.0.0.1:{first.port}&host=127.0.0.1:{second.port}"
    url = f"postgresql+asyncpg://ringback@/postgres?{hosts}&target_session_attrs=primary"
    Settings(database_url=url, redis_url="redis://x", secret_key="0123456789abcdef" * 2)
    db = Database(url, pool_size=1)
    await execute(db, WRITE)
    await asyncio.to_thread(postgres.kill)
    assert not await _writes(db), "none of them is the primary"
    await asyncio.to_thread(replica.promote)
    async with asyncio.timeout(30):
        while not await _writes(db):
            await asyncio.sleep(0.05)
    await db.dispose()
    await asyncio.to_thread(replica.kill)
    for address in (first, second):
        await address.stop()


async def _writes(db: Database) -> bool:
    try:
        await execute(db, "INSERT INTO written VALUES (1)")
    except Exception as error:
        if not is_unreachable(error):
            raise
        return False
    return True


async def test_a_connection_to_a_demoted_valkey_is_replaced(tmp_path: Path) -> None:
    first, second = ReplicaValkey(tmp_path / "first"), ReplicaValkey(tmp_path / "second")
    await asyncio.to_thread(first.start)
    await asyncio.to_thread(second.follow, first)
    password = str(urlsplit(first.url).password)
    address = MovingAddress()
    await address.start(first.address)
    url = f"redis://:{password}@127.0.0.1:{address.port}/0"
    redis, throttle = arq_pool(url), LoginThrottle(url)
    await redis.set("hint", "before")
    await throttle.record_failure("a@example.com", "192.0.2.1")

    await asyncio.to_thread(second.promote)
    address.move(second.address)
    await asyncio.to_thread(first.demote, second)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set("hint", "after")
        await pipe.execute()
    assert await redis.get("hint") == b"after"
    for _ in range(5):
        await throttle.record_failure("b@example.com", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        await throttle.check("b@example.com", "192.0.2.1")

    await redis.aclose(close_connection_pool=True)
    await throttle.aclose()
    await address.stop()
    for server in (first, second):
        await asyncio.to_thread(server.kill)
