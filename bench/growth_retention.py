"""Retention beside traffic, for `bench.growth`: what polls and creates take before a month's calls are deleted, and
while they are. As a process, `python -m bench.growth_retention DAYS`, it deletes, as a calls worker does."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping

import httpx

from app import providers, retention
from app.db import Database
from app.settings import get_settings
from bench.growth_requests import GrowthRequest, values_of
from bench.installation import Installation

DAYS = 700  # of 730: a month
_BEFORE_SECONDS = 60.0
_PER_SECOND = 25
_POLL = GrowthRequest("poll", "/api/developer/calls/{call}/transcript")
_CREATE = GrowthRequest(
    "create",
    "/api/developer/calls/click2call",
    {"customer_number": "+{new_customer}", "agent_number": "+918888888888"},
)


async def measure(installation: Installation, calls: int, headers: Mapping[str, Mapping[str, str]]) -> None:
    """Print Markdown."""
    users = list(headers)
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=60) as client:

        async def send_while(goes_on: Callable[[], bool]) -> dict[str, list[float]]:
            taken: dict[str, list[float]] = {"poll": [], "create": []}
            began, n = time.monotonic(), 0
            while goes_on():
                await asyncio.sleep(max(0.0, began + n / _PER_SECOND - time.monotonic()))
                user, request = users[n % len(users)], _CREATE if n % 5 == 0 else _POLL
                sent = time.perf_counter()
                await request.send(client, headers[user], values_of(user, calls, n % 1000))
                taken[request.name].append((time.perf_counter() - sent) * 1000)
                n += 1
            return taken

        until = time.monotonic() + _BEFORE_SECONDS
        before = await send_while(lambda: time.monotonic() < until)
        process = installation.start("retention", "bench.growth_retention", str(DAYS))
        began = time.monotonic()
        beside = await send_while(lambda: process.poll() is None)
    print(f"\n### A month's calls deleted beside traffic, {time.monotonic() - began:.0f} s\n")
    print((installation.data_dir / "retention.log").read_text().strip().splitlines()[-1])
    print("\n| | p95 ms before | p95 ms beside it | ratio |\n|---|---|---|---|")
    for name in before:
        one, two = _p95(before[name]), _p95(beside[name])
        print(f"| {name} | {one:.1f} | {two:.1f} | {two / one:.2f} |", flush=True)


def _p95(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.95)]


async def _delete(days: int) -> None:
    settings = get_settings()
    db = Database(settings.database_url, pool_size=2)
    began = time.monotonic()
    count = await retention.delete_old(db, providers.storage(settings), days=days)
    seconds = time.monotonic() - began
    print(f"{count:,} calls and callbacks in {seconds:.0f} s: {count / max(seconds, 1):.0f} a second")
    await db.dispose()


if __name__ == "__main__":
    asyncio.run(_delete(int(sys.argv[1])))
