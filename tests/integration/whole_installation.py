"""An installation in a test: its own database and folder, workers of every kind, and the simulator that all share."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from app import accounts, providers
from app.call_rules import RulesReader
from app.db import Database
from app.engine_models import Queue, Task
from app.hints import Hints, arq_pool
from app.models import User
from app.new_calls import CallCreator, NewCall
from app.numbers import PhoneNumber
from app.outbound import Outbound, parse_networks
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from app.storage import FolderStorage
from app.telephony.simulator import Simulator
from app.transcription.summary import LocalSummarizer
from tests.conftest import AGENT
from tests.integration.call_runner import SAID, StubRecognizer
from tests.integration.command import Ringback
from worker.context import Context, receivers, recording_hosts
from worker.gates import Gates
from worker.main import work

_VALKEY_DATABASE = 9  # all share it, so that each finds the hints that another left


@dataclass
class WholeInstallation:
    settings: Settings
    simulator: Path

    @property
    def ringback(self) -> Ringback:
        return Ringback(self.settings, self.settings.data_dir)

    def opened(self) -> Context:
        hints = Hints(arq_pool(self.settings.redis_url))
        db = Database(self.settings.database_url, pool_size=4, after_commit=hints.send_noted)
        return Context(
            settings=self.settings,
            db=db,
            hints=hints,
            providers=ProviderDirectory(db, self.settings, environment=Simulator(self.simulator, speed=2)),
            provider_links=providers.provider_links(self.settings),
            rules=RulesReader(db, self.settings),
            gates=Gates(),
            storage=FolderStorage(self.settings.data_dir),
            recognizer=StubRecognizer(SAID),
            summarizer=LocalSummarizer(),
            outbound=Outbound(parse_networks("127.0.0.0/8")),
            links=providers.links(self.settings),
            receivers=receivers(self.settings),
            recording_hosts=recording_hosts(self.settings),
        )

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        db = Database(self.settings.database_url, pool_size=2)
        try:
            yield db
        finally:
            await db.dispose()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run a worker of each kind while the block runs, then stop them as SIGTERM does."""
        stop = asyncio.Event()
        workers = [asyncio.create_task(work(self.opened(), queue, stop)) for queue in Queue]
        try:
            yield
        finally:
            stop.set()
            assert await asyncio.gather(*workers) == [0, 0, 0]

    async def place(self, user: User, customer: str, url: str | None, count: int = 1) -> list[str]:
        context = self.opened()
        async with context.db.transaction() as session:
            claims = await accounts.open_login(session, user, seconds=60)
        creator = CallCreator(context.db, context.hints, context.providers, context.rules, self.settings)
        order = NewCall(PhoneNumber(customer), AGENT, callback_url=url)
        ids = [(await creator.create(claims, order)).id for _ in range(count)]
        await context.hints.aclose()
        await context.outbound.aclose()
        await context.db.dispose()
        return ids

    def requests(self) -> Counter[tuple[str, str]]:
        """How often the provider was asked to `place` or `hangup` each call, by whichever installation."""
        lines = [json.loads(line) for file in self.simulator.rglob("*.jsonl") for line in file.read_text().splitlines()]
        return Counter((line["request"], line["call_id"]) for line in lines)

    async def count_tasks(self) -> int:
        async with self.database() as db, db.statement() as connection:
            return (await connection.execute(select(func.count()).select_from(Task))).scalar_one()

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        async with self.database() as db, db.statement() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]


async def new_installation(settings: Settings, folder: Path, secret_key: str | None = None) -> WholeInstallation:
    """With an empty database, on the server of these settings."""
    name = f"installation_{secrets.token_hex(4)}"
    admin = Database(settings.database_url, pool_size=1)
    async with admin.statement() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await admin.dispose()
    url = make_url(settings.database_url).set(database=name).render_as_string(hide_password=False)
    own = settings.model_copy(
        update={
            "database_url": url,
            "redis_url": settings.redis_url.removesuffix("/0") + f"/{_VALKEY_DATABASE}",
            "data_dir": folder / name,
            "sweep_seconds": 0.2,
        }
    )
    return WholeInstallation(own, folder / "simulator")
