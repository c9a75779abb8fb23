"""A whole worker in a test, with a database and a Valkey that hold no tasks of other tests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from arq.connections import ArqRedis
from sqlalchemy import func, select

from app import accounts
from app.call_rules import RulesReader
from app.db import Database
from app.engine_models import Queue
from app.hints import Hints, arq_pool
from app.models import Call, User
from app.new_calls import NewCall
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from app.telephony import base
from tests.conftest import AGENT, CUSTOMER, creator_of
from tests.integration.call_runner import ScriptedProvider, ended
from worker.context import Context
from worker.gates import Gates
from worker.main import work

PATIENCE_SECONDS = 60  # far above what anything takes


@dataclass
class SlowProvider(ScriptedProvider):
    """Takes a moment to answer, and counts how many orders run at once. No order is answered before so many have run at
    once as `holds_until`."""

    snapshot: base.Snapshot | Exception | None = field(default_factory=lambda: ended(recording=False))
    at_once: int = 0
    most_at_once: int = 0
    holds_until: int = 1
    were_enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def place(self, order: base.CallOrder) -> base.PlaceResult:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.most_at_once >= self.holds_until:
            self.were_enough.set()
        await self.were_enough.wait()
        await asyncio.sleep(0.02)
        self.at_once -= 1
        return await super().place(order)


@dataclass
class IsolatedWorker:
    """A database, a Valkey, a user and a provider for whole workers."""

    settings: Settings
    context: Context
    user: User
    redis: ArqRedis
    provider: SlowProvider = field(default_factory=SlowProvider)

    def opened(self, **settings: object) -> Context:
        """A worker's context, with its own clients."""
        changed = self.settings.model_copy(update=settings)
        hints = Hints(arq_pool(changed.redis_url))
        db = Database(changed.database_url, pool_size=4, after_commit=hints.send_noted)
        return replace(
            self.context,
            settings=changed,
            db=db,
            hints=hints,
            providers=ProviderDirectory(db, changed, environment=self.provider),
            rules=RulesReader(db, changed),
            gates=Gates(),
        )

    async def place(self, count: int) -> set[str]:
        db = self.context.db
        async with db.transaction() as session:
            claims = await accounts.open_login(session, self.user, seconds=60)
        creator = creator_of(db, self.context.hints)
        order = NewCall(CUSTOMER, AGENT)
        return {(await creator.create(claims, order)).id for _ in range(count)}

    async def ended(self, ids: set[str]) -> None:
        """Wait until all these calls have ended, each dialed once."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            open_calls = select(func.count()).where(Call.id.in_(ids), Call.status != "completed")
            while True:
                async with self.context.db.statement() as connection:
                    if not (await connection.execute(open_calls)).scalar_one():
                        break
                await asyncio.sleep(0.02)
        dialed = Counter(order.call_id for order in self.provider.orders)
        assert {call_id: dialed[call_id] for call_id in ids} == dict.fromkeys(ids, 1)

    @asynccontextmanager
    async def working(self, queue: Queue = Queue.CALLS, /, **settings: object) -> AsyncIterator[None]:
        """Run a worker while the block runs, then stop it as SIGTERM does."""
        stop = asyncio.Event()
        worker = asyncio.create_task(work(self.opened(**settings), queue, stop))
        try:
            yield
        finally:
            stop.set()
            assert await worker == 0
