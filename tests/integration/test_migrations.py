"""Models and migrations agree, every migration can be reverted, and stored data survives them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.cli.migrate import alembic_config
from app.embedded import Postgres


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data_dir: Path = tmp_path_factory.mktemp("migrations")
    postgres = Postgres(data_dir)
    yield postgres.start()
    postgres.stop(immediately=True)


def test_migrations_lead_to_the_models_and_back(database_url: str) -> None:
    config = alembic_config(database_url)
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")


BEFORE_0006 = """
INSERT INTO users (id, email, password_hash) VALUES ('USR_0000000A', 'a@x', ''), ('USR_0000000B', 'b@x', '');
INSERT INTO dids (id, number, key, user_id, max_channels, allocated_channels, inbound_callback_url, created_at) VALUES
    ('PN_0000000001', '8012345678', '8012345678', 'USR_0000000A', 3, 2, NULL, '2026-01-01'),
    ('PN_0000000002', '08012345678', '08012345678', 'USR_0000000A', 5, 2, 'https://a.example', '2026-01-02'),
    ('PN_0000000003', '0918012345678', '0918012345678', NULL, 9, 0, NULL, '2025-01-01'),
    ('PN_0000000004', '00447400123456', '00447400123456', 'USR_0000000B', 1, 1, NULL, '2026-01-01');
INSERT INTO calls (id, user_id, customer_number, agent_number, did, did_id, reported_date) VALUES
    ('call_0000000000000001', 'USR_0000000A', '9876543210', '09811111111', '8012345678', 'PN_0000000001', NULL),
    ('call_0000000000000002', 'USR_0000000A', '919876543210', NULL, '08012345678', 'PN_0000000002',
     '2026/11/20 10:15:30'),
    ('call_0000000000000003', 'USR_0000000A', '15005550001', '447700900123', NULL, 'PN_0000000003', 'now');
"""


async def run(database_url: str, *statements: str) -> list[list[tuple[object, ...]]]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        done = [await connection.execute(text(statement)) for statement in statements if statement.strip()]
        rows = [[tuple(row) for row in result] if result.returns_rows else [] for result in done]
    await engine.dispose()
    return rows


def test_spellings_of_one_number_are_merged(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = alembic_config(database_url)
    command.upgrade(config, "0005")
    asyncio.run(run(database_url, *BEFORE_0006.split(";")))
    command.upgrade(config, "head")
    dids, calls = asyncio.run(
        run(
            database_url,
            "SELECT id, number, user_id, max_channels, allocated_channels, inbound_callback_url FROM dids ORDER BY id",
            "SELECT customer_number, agent_number, did, did_id, reported_date FROM calls ORDER BY id",
        )
    )
    assert dids == [
        ("PN_0000000001", "918012345678", "USR_0000000A", 5, 4, "https://a.example"),
        ("PN_0000000004", "447400123456", "USR_0000000B", 1, 1, None),
    ]
    assert calls == [
        ("919876543210", "919811111111", "918012345678", "PN_0000000001", None),
        ("919876543210", None, "918012345678", "PN_0000000001", "2026-11-20T10:15:30"),
        ("15005550001", "447700900123", None, "PN_0000000001", "now"),
    ]
    printed = capsys.readouterr().out
    merged = "PN_0000000002: 08012345678 is 918012345678, which is PN_0000000001. Merged into that, with its 1 calls"
    assert merged in printed
    assert "of nobody, is 918012345678" in printed
    assert "1 calls: customer_number" in printed
    command.downgrade(config, "0005")
    assert asyncio.run(run(database_url, "SELECT key FROM dids ORDER BY id")) == [[("8012345678",), ("447400123456",)]]


async def test_a_long_transaction_delays_a_migration_and_nobody_else(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = alembic_config(database_url)
    await asyncio.to_thread(command.upgrade, config, "0010")
    engine = create_async_engine(database_url)
    async with engine.connect() as reader:
        await reader.execute(text("SELECT count(*) FROM users"))
        migrating = asyncio.create_task(asyncio.to_thread(command.upgrade, config, "head"))
        while "Another transaction has locked a table" not in capsys.readouterr().out:
            await run(database_url, "SELECT count(*) FROM users")
        assert not migrating.done()
        blocked = alembic_config(database_url)
        blocked.attributes["patience_seconds"] = 0
        await reader.rollback()
        await migrating
        await reader.execute(text("SELECT count(*) FROM users"))
        with pytest.raises(CommandError, match=r"stays locked .* idle in transaction.*`ringback migrate` again"):
            await asyncio.to_thread(command.downgrade, blocked, "0010")
        assert await run(database_url, "SELECT version_num FROM alembic_version") == [[("0015",)]]
    await engine.dispose()
    await asyncio.to_thread(command.downgrade, config, "base")
