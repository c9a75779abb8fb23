"""PostgreSQL or Valkey stop under the API. Requests are still answered, and no accepted call is lost."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from sqlalchemy import func, select, text

from app.cli.migrate import alembic_config
from app.db import Compiled, Database
from app.embedded import Postgres, Valkey
from app.main import create_app
from app.models import Call, User
from app.settings import Settings
from tests.conftest import bearer, client_of, new_user

CREATE = "/api/developer/calls/click2call"
NUMBERS = {"customer_number": "919999999999", "agent_number": "918888888888"}


class OwnServers:
    """An application with its own servers, which a test may stop."""

    def __init__(self, data_dir: Path) -> None:
        self.postgres, self.valkey = Postgres(data_dir), Valkey(data_dir)
        self.settings = Settings(
            database_url=self.postgres.start(),
            redis_url=self.valkey.start(),
            data_dir=data_dir,
            secret_key=secrets.token_hex(32),
        )


@pytest.fixture
async def own_servers(tmp_path: Path) -> AsyncIterator[OwnServers]:
    own_servers = OwnServers(tmp_path)
    yield own_servers
    own_servers.valkey.stop()
    own_servers.postgres.stop(immediately=True)


@pytest.fixture
async def client(own_servers: OwnServers) -> AsyncIterator[httpx.AsyncClient]:
    await asyncio.to_thread(command.upgrade, alembic_config(own_servers.settings.database_url), "head")
    app = create_app(own_servers.settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        db = Database(own_servers.settings.database_url)
        user: User = await new_user(db)
        client.headers.update(await bearer(client, user))
        yield client
        await db.dispose()


async def post_until(stop: asyncio.Event, client: httpx.AsyncClient, answers: list[httpx.Response]) -> None:
    while not stop.is_set():
        answers.append(await client.post(CREATE, json=NUMBERS))
        await asyncio.sleep(0)


async def test_postgresql_stops_and_starts(own_servers: OwnServers, client: httpx.AsyncClient) -> None:
    answers: list[httpx.Response] = []
    stop = asyncio.Event()
    clients = [asyncio.create_task(post_until(stop, client, answers)) for _ in range(8)]
    for immediately in (True, False, True):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_servers.postgres.stop, immediately=immediately)
        await asyncio.sleep(0.3)
        assert (await client.get("/readyz")).json()["missing"][0].startswith("PostgreSQL cannot be used")
        await asyncio.to_thread(own_servers.postgres.start)
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*clients)

    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 503}, counts
    away = next(answer for answer in answers if answer.status_code == 503)
    assert int(away.headers["Retry-After"]) > 0
    assert "Try again" in away.json()["error"]
    accepted = {answer.json()["data"]["call_id"] for answer in answers if answer.status_code == 200}
    db = Database(own_servers.settings.database_url)
    async with db.transaction() as session:
        kept = set(await session.scalars(select(Call.id)))
        assert await session.scalar(select(func.count()).select_from(Call)) == len(kept)
    await db.dispose()
    assert accepted <= kept, "what was answered is kept"


async def test_valkey_is_killed(own_servers: OwnServers, client: httpx.AsyncClient) -> None:
    await asyncio.to_thread(own_servers.valkey.kill)
    for _ in range(20):
        assert (await client.post(CREATE, json=NUMBERS)).status_code == 200
    login = await client.post("/api/developer/login", json={"email": "nobody@example.com", "password": "x"})
    assert login.status_code == 400, "the throttle fails open"
    assert "Valkey cannot be used" in str((await client.get("/readyz")).json()["missing"])
    await asyncio.to_thread(own_servers.valkey.start)
    assert (await client.post(CREATE, json=NUMBERS)).status_code == 200
    assert "Valkey" not in str((await client.get("/readyz")).json()["missing"])


async def test_whoever_is_cancelled_leaves_the_next_a_clean_connection(own_servers: OwnServers) -> None:
    """A client leaves in the middle of a statement that the driver runs."""
    slow = Compiled(text("SELECT CAST(:said AS text) AS said FROM pg_sleep(300)"))
    quick = Compiled(text("SELECT CAST(:said AS text) AS said"))
    db = Database(own_servers.settings.database_url, pool_size=1)
    for number in range(5):
        waiting = asyncio.create_task(db.fetch_one(slow, {"said": "old"}))
        await asyncio.sleep(0.05 * number)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        row = await db.fetch_one(quick, {"said": "new"})
        assert row
        assert row["said"] == "new"
    running = Compiled(text("SELECT count(*) AS left FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%'"))
    async with asyncio.timeout(60):  # until they are canceled; this statement names it, too
        while (count := await db.fetch_one(running, {})) and count["left"] > 1:
            await asyncio.sleep(0.1)
    await db.dispose()
