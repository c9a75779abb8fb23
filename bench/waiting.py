"""What clients that wait cost, and how soon they are answered: `python -m bench.waiting`.

2,000 clients ask for the transcript of a call each with `Prefer: wait=60`, of one API process. First nothing happens,
then transcripts become ready, one after another. The same clients also poll every two seconds, to compare.
"""

import argparse
import asyncio
import itertools
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import aiohttp
import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts, transcripts
from app.db import Database
from app.hints import Hints, arq_pool
from app.models import User
from app.security import Tokens
from app.transcription.base import Digest, SpokenTurn, Transcription
from bench.installation import Installation

_SECONDS = 30.0
_POLL_SECONDS = 2.0
_CALLS = """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at)
    SELECT 'call_' || lpad(n::text, 16, '0'), :user, '919999999999', '918888888888', 'completed', now()
    FROM generate_series(1, :count) n
"""
_TRANSCRIPTS = """
INSERT INTO transcripts (id, call_id, user_id, status) SELECT right(id, 16), id, user_id, 'processing' FROM calls
"""
_MADE = Transcription((SpokenTurn("customer", "Yes, please", 0.0, 1.0),), Digest("Yes", "Interested", 0.9), "en", 1.0)


class _Bench:
    def __init__(self, installation: Installation, clients: int) -> None:
        self._installation = installation
        self._clients = clients
        self._hints = Hints(arq_pool(installation.redis_url))
        self._db = Database(installation.database_url, pool_size=2, after_commit=self._hints.send_noted)
        self._api = psutil.Process(installation.processes["api"].pid)
        self._changed_at: dict[str, float] = {}
        self._taken: list[float] = []
        self._answers = 0
        self._call_numbers = itertools.count(1)

    async def run(self) -> None:
        """Print Markdown."""
        tokens = Tokens(
            self._installation.environment["RINGBACK_SECRET_KEY"], access_seconds=7200, refresh_seconds=7200
        )
        async with self._db.transaction() as session:
            user = await accounts.create_user(session, "waiting@example.com", "a benchmark's password")
            self._token = tokens.issue("access", user.id, await self._open_login(session, user))
            await session.execute(text(_CALLS), {"user": user.id, "count": self._clients * 6})
            await session.execute(text(_TRANSCRIPTS))
        print(f"\n### {self._clients:,} clients of one API process\n")
        print("| | % of a core | answers/s | median ms after the change | p95 ms |\n|---|---|---|---|---|")
        await self._row("wait, nothing happens", wait=True, changes=0)
        await self._row("wait, 20 transcripts a second", wait=True, changes=20)
        await self._row("wait, 60 transcripts a second", wait=True, changes=60)
        await self._row(f"poll every {_POLL_SECONDS:.0f} s", wait=False, changes=0)
        await self._hints.aclose()
        await self._db.dispose()

    async def _open_login(self, session: AsyncSession, user: User) -> UUID:
        claims = await accounts.open_login(session, user, seconds=7200)
        return claims.session_id

    def _fresh_call(self) -> str:
        return f"call_{next(self._call_numbers):016d}"

    async def _row(self, name: str, *, wait: bool, changes: int) -> None:
        self._taken.clear()
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Authorization": f"Bearer {self._token}", **({"Prefer": "wait=60"} if wait else {})}
        async with aiohttp.ClientSession(self._installation.base_url, connector=connector, headers=headers) as http:
            self._waits_for = [self._fresh_call() for _ in range(self._clients)]
            clients = [asyncio.create_task(self._client(http, n, wait=wait)) for n in range(self._clients)]
            await asyncio.sleep(10)
            before, began, answers = self._cpu(), time.perf_counter(), self._answers
            changing = asyncio.create_task(self._change(changes)) if changes else None
            await asyncio.sleep(_SECONDS)
            seconds = time.perf_counter() - began
            used, answered = (self._cpu() - before) / seconds * 100, (self._answers - answers) / seconds
            if changing is not None:
                await changing
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        times = sorted(self._taken) or [0.0]
        shown = f"{statistics.median(times):.0f} | {times[int(len(times) * 0.95)]:.0f}" if self._taken else " | "
        print(f"| {name} | {used:.1f} | {answered:.0f} | {shown} |", flush=True)

    def _cpu(self) -> float:
        times = self._api.cpu_times()
        return times.user + times.system

    async def _client(self, http: aiohttp.ClientSession, n: int, *, wait: bool) -> None:
        await asyncio.sleep(random.uniform(0, 5 if wait else _POLL_SECONDS))
        while True:
            call_id = self._waits_for[n]
            async with http.get(f"/api/developer/calls/{call_id}/transcript") as answer:
                body = await answer.json()
                assert answer.status == 200, body
            self._answers += 1
            if body["data"]["transcript_status"] == "ready":
                self._taken.append((time.perf_counter() - self._changed_at[call_id]) * 1000)
                self._waits_for[n] = self._fresh_call()
            if not wait:
                await asyncio.sleep(_POLL_SECONDS)

    async def _change(self, per_second: int) -> None:
        """Make transcripts ready, of clients that wait for their first call."""
        began = time.perf_counter()
        for done, n in enumerate(random.sample(range(self._clients), int(per_second * _SECONDS * 0.9))):
            call_id = self._waits_for[n]
            async with self._db.transaction() as session:
                saved = await transcripts.save(session, call_id, _MADE, engine="a benchmark's")
                assert saved, call_id
                self._changed_at[call_id] = time.perf_counter()
            await asyncio.sleep(max(0.0, (done + 1) / per_second - (time.perf_counter() - began)))


def run(clients: int) -> None:
    """Run in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        try:
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")
            asyncio.run(_Bench(installation, clients).run())
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    run(options.clients)


if __name__ == "__main__":
    main()
