"""A large day in some minutes: `python -m bench.large_day --rate 20 --seconds 600`.

Clients order calls at a fixed rate, whatever the answers take, on the simulator: four in ten are answered, recorded and
transcribed, and each call has its callbacks. Two API processes, and three workers of each kind. The receiver of
callbacks and the speech endpoint are `bench.outside`, which answer at once: recognition is measured by `bench.speech`.
The recordings are decoded, and their turns, summaries and outcomes are made, as always.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import psutil
from sqlalchemy import text

from app import accounts
from app.db import Database
from app.security import Tokens
from bench import outside
from bench.installation import Installation, free_port

_USERS = 20
_WORKERS = 3
_AGENT = "918888888888"
_UNANSWERED = ("15005550001", "15005550002", "15005550003")
_ANSWERED_SHARE = 0.4
_DRAIN_SECONDS = 600.0
_SAMPLE_SECONDS = 5.0

_HAND_OVER = "SELECT extract(epoch FROM dialed_at - created_at) FROM calls WHERE dialed_at IS NOT NULL"
_CALLBACKS = "SELECT extract(epoch FROM ended_at - created_at) FROM deliveries WHERE status = 'delivered'"
_TRANSCRIPTS = """
SELECT extract(epoch FROM transcripts.updated_at - calls.ended_at)
FROM transcripts JOIN calls ON calls.id = transcripts.call_id WHERE transcripts.status = 'ready'
"""
_LEFT = "SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM calls WHERE ended_at IS NULL)"
_BACKLOG = """
SELECT queue, count(*) FROM tasks WHERE due_at < now() - interval '1 second' AND lease_until IS NULL GROUP BY queue
"""
_TABLES = """
SELECT relname, n_live_tup, n_dead_tup, autovacuum_count, pg_total_relation_size(relid) / 1024
FROM pg_stat_user_tables WHERE relname IN ('tasks', 'turns', 'calls', 'transcripts', 'deliveries') ORDER BY 1
"""


class _Day:
    def __init__(self, installation: Installation, outside_port: int, rate: float, seconds: float) -> None:
        self._installation = installation
        self._callback_url = f"http://127.0.0.1:{outside_port}/callbacks"
        self._rate, self._seconds = rate, seconds
        self._db = Database(installation.database_url, pool_size=4)
        self._answers: Counter[str] = Counter()
        self._took: list[float] = []
        self._most: Counter[str] = Counter()

    async def run(self) -> None:
        """Print Markdown."""
        tokens = await self._log_in()
        before = self._cpu()
        began = time.monotonic()
        sampling = asyncio.create_task(self._sample())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            orders = []
            for n in range(int(self._rate * self._seconds)):
                await asyncio.sleep(max(0.0, began + n / self._rate - time.monotonic()))
                orders.append(asyncio.create_task(self._order(http, random.choice(tokens))))
            await asyncio.gather(*orders)
        ordering = time.monotonic() - began
        while await self._scalar(_LEFT) and time.monotonic() - began - ordering < _DRAIN_SECONDS:
            await asyncio.sleep(0.5)
        whole = time.monotonic() - began
        left = await self._scalar(_LEFT)
        sampling.cancel()
        used = {kind: seconds - before[kind] for kind, seconds in self._cpu().items()}
        await self._print(ordering, whole, left, used)
        await self._db.dispose()

    async def _log_in(self) -> list[str]:
        secret = self._installation.environment["RINGBACK_SECRET_KEY"]
        tokens = Tokens(secret, access_seconds=7200, refresh_seconds=7200)
        made = []
        for n in range(_USERS):
            async with self._db.transaction() as session:
                user = await accounts.create_user(session, f"{n}@example.com", "a benchmark's password")
                login = await accounts.open_login(session, user, seconds=7200)
                made.append(tokens.issue("access", user.id, login.session_id))
        return made

    async def _order(self, http: aiohttp.ClientSession, token: str) -> None:
        answered = random.random() < _ANSWERED_SHARE
        customer = f"9199{random.randrange(10**8):08d}" if answered else random.choice(_UNANSWERED)
        body = {"customer_number": customer, "agent_number": _AGENT, "callback_url": self._callback_url}
        began = time.monotonic()
        url = f"{self._installation.base_url}/api/developer/calls/click2call"
        try:
            async with http.post(url, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
                await answer.read()
                self._answers[str(answer.status)] += 1
        except aiohttp.ClientError as error:
            self._answers[type(error).__name__] += 1
        self._took.append(time.monotonic() - began)

    async def _sample(self) -> None:
        """Note how much waited at most."""
        while True:
            async with self._db.statement() as connection:
                for queue, count in await connection.execute(text(_BACKLOG)):
                    self._most[queue] = max(self._most[queue], count)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _cpu(self) -> dict[str, float]:
        """CPU seconds by kind of process."""
        used: dict[str, float] = defaultdict(float)
        roots = {name: process.pid for name, process in self._installation.processes.items()}
        folder = self._installation.data_dir / "postgres"
        roots["PostgreSQL"] = int((folder / "postmaster.pid").read_text().splitlines()[0])
        roots["Valkey"] = self._installation.valkey.pid or 0
        for name, pid in roots.items():
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                times = one.cpu_times()
                # The parent has the CPU of children that have ended.
                used[name.rstrip("0123456789 ")] += times.user + times.system
            ended = process.cpu_times()
            used[name.rstrip("0123456789 ")] += ended.children_user + ended.children_system
        return used

    async def _scalar(self, statement: str) -> int:
        async with self._db.statement() as connection:
            return int((await connection.execute(text(statement))).scalar_one())

    async def _times(self, statement: str) -> list[float]:
        async with self._db.statement() as connection:
            return sorted(float(row[0]) for row in await connection.execute(text(statement)))

    async def _print(self, ordering: float, whole: float, left: int, used: Mapping[str, float]) -> None:
        calls = await self._scalar("SELECT count(*) FROM calls")
        print(f"\n### {self._rate:g} calls a second for {self._seconds:.0f} s\n")
        print(f"Answers: {dict(self._answers)}. {calls:,} calls, {left} left after {whole - ordering:.0f} s more.")
        print(f"Most that waited for more than a second: {dict(self._most)}\n")
        print("| | median s | p95 s | most s |\n|---|---|---|---|")
        for name, times in (
            ("order: POST to its answer", sorted(self._took)),
            ("hand-over: order to dial attempt", await self._times(_HAND_OVER)),
            ("callback: written to delivered", await self._times(_CALLBACKS)),
            ("transcript: end of call to ready", await self._times(_TRANSCRIPTS)),
        ):
            print(f"| {name} | {_row(times)} |")
        print("\n| process | CPU ms for a call | of a core, while calls came |\n|---|---|---|")
        for kind, seconds in sorted(used.items(), key=lambda one: -one[1]):
            print(f"| {kind} | {seconds / max(1, calls) * 1000:.1f} | {seconds / whole:.2f} |")
        print("\n| table | rows | dead rows | autovacuums | KB |\n|---|---|---|---|---|")
        async with self._db.statement() as connection:
            for row in await connection.execute(text(_TABLES)):
                print("| " + " | ".join(map(str, row)) + " |")


def _row(times: Sequence[float]) -> str:
    if not times:
        return "| |"
    return f"{statistics.median(times):.3f} | {times[int(len(times) * 0.95)]:.3f} | {times[-1]:.3f}"


def run(rate: float, seconds: float) -> None:
    """Run in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        own = {"RINGBACK_API_PROCESSES": "2", "RINGBACK_TRANSCRIPT_CONCURRENCY": "4"}
        installation = Installation(Path(folder), {**outside.settings(port), **own})
        try:
            installation.start_servers()
            installation.start("outside", "bench.outside", str(port))
            installation.start_api()
            for queue in ("calls", "callbacks", "transcripts"):
                for n in range(_WORKERS):
                    installation.start_worker(f"{queue} {n}", queue)
            installation.wait_until_ready()
            time.sleep(3)
            asyncio.run(_Day(installation, port, rate, seconds).run())
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="calls a second")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    run(options.rate, options.seconds)


if __name__ == "__main__":
    main()
