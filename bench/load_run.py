"""An installation under a steady load, for runs in which something happens to it. Used by tests and benchmarks."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from app import accounts, call_rules, callbacks
from app.db import Database
from bench.delivery_log import DeliveryLog
from bench.installation import Installation
from bench.steady_load import SteadyLoad
from bench.telephony_backends import SimulatorBackend
from bench.verdict import find_lost_and_doubled, list_undelivered, observe, wait_for_ends

EMAIL, PASSWORD = "load@example.com", "a steady load"
BUSY = "15005550001"
CUSTOMERS = ("919999999999", "919999999998", BUSY, "15005550005")
SETTINGS = {
    "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
    "RINGBACK_LEASE_SECONDS": "5",
    "RINGBACK_SIMULATOR_LATENCY_SECONDS": "0.1",
}


@dataclass
class LoadRun:
    """An installation, its clients, and what they saw."""

    installation: Installation
    load: SteadyLoad
    deliveries: DeliveryLog
    db: Database
    statuses: dict[str, int] = field(default_factory=dict)

    async def judge(self) -> list[str]:
        """Stop the clients, let all calls end, and return what is wrong."""
        await self.load.stop()
        await wait_for_ends(self.db)
        calls = await observe(self.db)
        for call in calls:
            self.statuses[call.status] = self.statuses.get(call.status, 0) + 1
        placed = await SimulatorBackend(self.installation.data_dir).placed(calls)
        return [
            *self.load.failures,
            *find_lost_and_doubled(calls, placed, self.load.accepted),
            *self.deliveries.violations(calls),
            *await list_undelivered(self.db),
        ]


@asynccontextmanager
async def load_run(
    installation: Installation,
    addresses: list[str],
    *,
    orders_per_second: float = 5.0,
    customers: Sequence[str] = CUSTOMERS,
) -> AsyncIterator[LoadRun]:
    """Clients of a running installation, whose settings are `SETTINGS` and more. They call these `customers`."""

    def new_order() -> dict[str, str]:
        numbers = {"customer_number": random.choice(customers), "agent_number": "918888888888"}
        return numbers | {"callback_url": deliveries.url}

    db = Database(installation.database_url, pool_size=3)
    deliveries = DeliveryLog()
    await deliveries.start()
    try:
        async with db.transaction() as session:
            user = await accounts.create_user(session, EMAIL, PASSWORD)
            await call_rules.change(session, None, {"destinations": "+91"}, ZoneInfo("UTC"))
            deliveries.trust(await callbacks.list_valid_secrets(session, user.id))
        load = SteadyLoad(addresses, new_order, orders_per_second=orders_per_second)
        await load.start(EMAIL, PASSWORD)
        try:
            yield LoadRun(installation, load, deliveries, db)
        finally:
            await load.stop()
    finally:
        await deliveries.stop()
        await db.dispose()
