"""How long the console's pages take among a million calls, and what open consoles cost: `python -m bench.console`.

The pages are asked for one after another, so a time is that of the server and of one request on loopback. The open
consoles are lists of all users' calls, while calls are ordered; what the orders cost without them is subtracted.
"""

import argparse
import asyncio
import os
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from app import accounts
from app.db import Database
from bench.installation import Installation
from bench.recent import USERS, fill

_PASSWORD = "a benchmark's password"
_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
_CALLS_PER_SECOND = 10
_SECONDS = 20.0

_PAGES = {
    "calls, the newest": "/calls",
    "calls, an older page": "/calls?before={older}",
    "calls of all users": "/calls?whose=all",
    "… of one day": "/calls?whose=all&period=today",
    "… that failed": "/calls?whose=all&status=failed",
    "… that are live": "/calls?whose=all&status=live",
    "… with an outcome": "/calls?whose=all&outcome=Interested",
    "… with an outcome that is not there": "/calls?whose=all&outcome=Nothing",
    "… by a whole number": "/calls?whose=all&q={number}",
    "… by a part of a number": "/calls?whose=all&q=54321",
    "… by a word of each": "/calls?whose=all&q=hello",
    "… by a word of one": "/calls?whose=all&q=order777777",
    "… by words of none": "/calls?whose=all&q=hello+nobody",
    "mine, by a word of each": "/calls?q=hello",
    "mine, by a part of a number": "/calls?q=54321",
    "one call": "/calls/{call}",
    "place a call": "/calls/new",
    "numbers": "/numbers",
    "callbacks": "/deliveries",
    "callbacks of all users": "/deliveries?whose=all",
    "installation": "/installation",
    "account": "/account",
}


async def _sign_in(client: httpx.AsyncClient, email: str) -> None:
    form = {"email": email, "password": _PASSWORD}
    answer = await client.post("/login", data=form, headers=_ORIGIN)
    assert answer.status_code == 303, answer.text


async def _make_operator(db: Database) -> str:
    """One of the users with many calls becomes the operator."""
    async with db.transaction() as session:
        user = (await accounts.list_users(session))[7]
        await accounts.set_password(session, user, _PASSWORD)
        await accounts.set_operator(session, user, is_operator=True)
        return user.email


async def pages(installation: Installation, db: Database, *, calls: int, requests: int) -> None:
    """Print the time of each page, as Markdown."""
    await fill(installation.database_url, calls)
    email = await _make_operator(db)
    print(f"\n### Pages of the console among {calls:,} calls of {USERS} users\n")
    print("| page | first ms | median ms | p95 ms |\n|---|---|---|---|")
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=120) as client:
        await _sign_in(client, email)
        page = (await client.get("/calls?whose=all")).text
        values = {
            "older": re.findall(r"before=(call_\w+)", page)[0],
            "call": re.findall(r'<tr id="(call_\w+)"', page)[0],
            "number": f"9199{calls // 2 * 7919 % 100_000_000:08d}",
        }
        for name, path in _PAGES.items():
            taken = []
            for _ in range(requests):
                began = time.perf_counter()
                answer = await client.get(path.format(**values))
                taken.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (path, answer.status_code)
            first, rest = taken[0], sorted(taken[1:])
            print(
                f"| {name} | {first:.1f} | {statistics.median(rest):.1f} | {rest[int(len(rest) * 0.95)]:.1f} |",
                flush=True,
            )


async def open_consoles(installation: Installation, db: Database, *, counts: Sequence[int]) -> None:
    """Print what the API process uses of a core, with so many open lists, as Markdown."""
    process = psutil.Process(installation.processes["api"].pid)
    print(f"\n### Open consoles, with {_CALLS_PER_SECOND} orders a second\n")
    print("| open lists | % of a core | messages received |\n|---|---|---|")
    async with db.transaction() as session:
        user = await accounts.create_user(session, "console@example.com", _PASSWORD)
        await accounts.set_operator(session, user, is_operator=True)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=60, limits=limits) as client:
        login = await client.post("/api/developer/login", json={"email": "console@example.com", "password": _PASSWORD})
        headers = {"Authorization": f"Bearer {login.json()['data']['access_token']}"}
        for count in counts:
            received = [0]
            streams = [asyncio.create_task(_watch(installation.base_url, received, n)) for n in range(count)]
            await asyncio.sleep(2 + count / 50)
            before = process.cpu_times()
            began = time.perf_counter()
            while (elapsed := time.perf_counter() - began) < _SECONDS:
                await client.post("/api/developer/calls/click2call", json=_ORDER, headers=headers)
                await asyncio.sleep(max(0.0, 1 / _CALLS_PER_SECOND - (time.perf_counter() - began - elapsed)))
            after = process.cpu_times()
            used = after.user + after.system - before.user - before.system
            print(f"| {count} | {100 * used / _SECONDS:.1f} | {received[0]} |", flush=True)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            await asyncio.sleep(1)


_ORDER = {"customer_number": "+919876543210", "agent_number": "+918888888888"}
_cookies: dict[int, httpx.Cookies] = {}


async def _watch(base_url: str, received: list[int], n: int) -> None:
    """One open list. A login has up to 20."""
    login = n // 15
    async with httpx.AsyncClient(base_url=base_url, timeout=None) as client:
        if login not in _cookies:
            _cookies[login] = httpx.Cookies()
            await _sign_in(client, "console@example.com")
            _cookies[login] = client.cookies
        while not _cookies[login]:
            await asyncio.sleep(0.05)
        client.cookies = _cookies[login]
        async with client.stream("GET", "/calls/events?whose=all") as answer:
            assert answer.status_code == 200, answer.status_code
            async for line in answer.aiter_lines():
                received[0] += line.startswith("event: rows")


def run(calls: int, requests: int) -> None:
    """Run in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        try:
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")

            async def measure() -> None:
                db = Database(installation.database_url, pool_size=2)
                await open_consoles(installation, db, counts=(0, 200, 0, 200))
                if calls:
                    await pages(installation, db, calls=calls, requests=requests)
                await db.dispose()

            asyncio.run(measure())
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=30)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    run(options.calls, options.requests)


if __name__ == "__main__":
    main()
