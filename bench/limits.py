"""What limits cost an order: `python -m bench.limits`. Batches of orders of a user without and of one with all limits,
in turn. CPU is that of the API and PostgreSQL together. There are no workers, so all calls stay queued, and what the
limits count grows.
"""

import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx

from app import accounts, call_rules
from app.db import Database
from bench.installation import Installation, processes

_PASSWORD = "a benchmark's password"
_ORDER = {"customer_number": "+919876543210", "agent_number": "+918888888888"}
_ORDERS, _AT_ONCE, _ROUNDS = 400, 8, 9
_LIMITS = {
    "calls_at_once": 1_000_000,
    "calls_per_minute": 1_000_000,
    "calls_per_day": 1_000_000,
    "talk_minutes_per_day": 1_000_000,
    "talk_minutes_per_month": 1_000_000,
    "destinations": "IN, GB",
}


def _cpu() -> float:
    """CPU seconds of everything that this process has started."""
    found = processes()
    ours, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent, _ in found if parent in ours} - ours
        grown, ours = bool(more), ours | more
    return sum(seconds for pid, _, seconds in found if pid in ours and pid != os.getpid())


async def _batch(client: httpx.AsyncClient, headers: dict[str, str]) -> tuple[float, float]:
    """Milliseconds of CPU, and of time, for each order."""
    left = iter(range(_ORDERS))
    cpu, began = _cpu(), time.perf_counter()

    async def order() -> None:
        for _ in left:
            answer = await client.post("/api/developer/calls/click2call", json=_ORDER, headers=headers)
            assert answer.status_code == 200, answer.text

    await asyncio.gather(*(order() for _ in range(_AT_ONCE)))
    return (_cpu() - cpu) / _ORDERS * 1000, (time.perf_counter() - began) / _ORDERS * 1000


async def _measure(installation: Installation) -> None:
    db = Database(installation.database_url, pool_size=2)
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=60) as client:
        tokens: dict[str, dict[str, str]] = {}
        for name, limits in (("none", {}), ("all", _LIMITS), ("none again", {})):
            email = f"{name.replace(' ', '-')}@example.com"
            async with db.transaction() as session:
                user = await accounts.create_user(session, email, _PASSWORD)
                await call_rules.change(session, user, limits, ZoneInfo("Asia/Kolkata"))
            login = await client.post("/api/developer/login", json={"email": email, "password": _PASSWORD})
            tokens[name] = {"Authorization": f"Bearer {login.json()['data']['access_token']}"}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tokens}
        for _ in range(_ROUNDS):
            for name, headers in tokens.items():
                taken[name].append(await _batch(client, headers))
    print(f"\n| limits | CPU ms for an order: the first {_ORDERS} | all {_ORDERS * _ROUNDS:,} | the last |")
    print("|---|---|---|---|")
    for name, rows in taken.items():
        cpu = [row[0] for row in rows]
        print(f"| {name} | {cpu[0]:.2f} | {statistics.median(cpu):.2f} | {cpu[-1]:.2f} |", flush=True)
    await db.dispose()


def main() -> None:
    """Prints Markdown."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        try:
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")
            asyncio.run(_measure(installation))
        finally:
            installation.stop()


if __name__ == "__main__":
    main()
