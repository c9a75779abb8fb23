"""A whole installation behind PgBouncer, which gives each transaction another connection of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import select, text

from app.db import Compiled, Database
from app.engine_models import ListenerRow
from bench.installation import Installation
from bench.load_run import BUSY, SETTINGS, load_run
from lab.packages import PackagesError
from lab.pgbouncer import PgBouncer
from tests.speech import speech_endpoint

POOL_SIZE = 5
"""Far fewer than the connections that the processes open."""
CALLS = 40
PATIENCE_SECONDS = 60.0
CUSTOMERS = (*[BUSY] * 9, "919999999999")  # recognition would take most of the time
QUEUES = ("calls", "callbacks", "transcripts")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    settings = SETTINGS | {"RINGBACK_DATABASE_POOLER": "transaction", "RINGBACK_SIMULATOR_SPEED": "4"}
    installation = Installation(tmp_path_factory.mktemp("pooler"), settings)
    installation.start_servers(migrate=False)
    yield installation
    installation.stop()


@pytest.fixture(scope="module")
def pgbouncer(installation: Installation) -> Iterator[PgBouncer]:
    pgbouncer = PgBouncer(installation.data_dir / "pgbouncer", installation.database_url, pool_size=POOL_SIZE)
    try:
        pgbouncer.start()
    except PackagesError as error:
        pytest.skip(str(error))
    installation.environment["RINGBACK_DATABASE_URL"] = pgbouncer.url
    installation.run("migrate")
    yield pgbouncer
    pgbouncer.stop()


@pytest.fixture
async def pooled(pgbouncer: PgBouncer) -> AsyncIterator[Database]:
    db = Database(pgbouncer.url, pooler="transaction")
    yield db
    await db.dispose()


async def test_a_statement_of_one_client_is_never_run_for_another(pooled: Database) -> None:
    """Unnamed prepared statements of many clients share a few connections."""
    statements = {name: Compiled(text(f"SELECT '{name}' || CAST(:n AS text) AS said")) for name in "abcdefgh"}

    async def ask(name: str) -> None:
        for number in range(40):
            row = await pooled.fetch_one(statements[name], {"n": str(number)})
            assert row is not None
            assert row["said"] == f"{name}{number}"
            async with pooled.transaction() as session:
                assert await session.scalar(text(f"SELECT '{name}' || CAST(:n AS text)"), {"n": "x"}) == f"{name}x"

    await asyncio.gather(*map(ask, statements))


async def test_a_process_that_does_not_know_of_the_pooler_is_refused(pgbouncer: PgBouncer) -> None:
    db = Database(pgbouncer.url, pool_size=1)
    with pytest.raises(Exception, match="unsupported startup parameter"):
        await db.fetch_one(Compiled(text("SELECT 1")), {})
    await db.dispose()


async def somebody_listens(db: Database) -> None:
    """On a busy machine the lease moves from worker to worker, and for a moment nobody is connected."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with db.statement() as connection:
                if (await connection.execute(select(ListenerRow.connected_since))).scalar_one_or_none() is not None:
                    return
            await asyncio.sleep(0.1)


async def test_calls_reach_their_ends_behind_pgbouncer(installation: Installation, pgbouncer: PgBouncer) -> None:
    async with speech_endpoint() as speech:
        installation.environment |= speech
        installation.start_api()
        for number in range(2):
            for queue in QUEUES[: 1 if number else 3]:
                installation.start_worker(f"{queue}-{number}", queue)
        await asyncio.to_thread(installation.wait_until_ready)
        # The judge looks past the pooler.
        async with load_run(installation, [installation.base_url], orders_per_second=10, customers=CUSTOMERS) as run:
            await run.load.accept(CALLS)
            violations = await run.judge()
            await somebody_listens(run.db)
            assert violations == []
            assert run.load.refused == 0
            assert run.statuses.keys() <= {"completed", "busy"}
    for name, log in ((path.name, path.read_text()) for path in installation.data_dir.glob("*.log")):
        assert "prepared statement" not in log, name
