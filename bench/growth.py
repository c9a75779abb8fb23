"""What the server's queries take among 10 thousand, 1 million and 10 million calls: `python -m bench.growth`.

The times are PostgreSQL's own, from its log: of everything that it ran for one request, or for one statement of the
workers. Twenty minutes and 25 GB of disk for ten million calls; `--calls 10000 1000000` is quicker.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import Database
from app.embedded import Postgres
from app.security import Tokens
from bench import growth_retention, outside
from bench.growth_fill import USERS, fill
from bench.growth_requests import OPERATOR, OPERATOR_NUMBER, REQUESTS, values_of
from bench.installation import Installation, free_port

_DURATION = re.compile(r"LOG: +duration: ([\d.]+) ms +(?:statement|parse|bind|execute)[^:]*: ?(.*)")
_ORDERS = 60
_PLAN = """
CREATE FUNCTION pg_temp.plan_of(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'EXPLAIN (GENERIC_PLAN) ' || statement;
END $$
"""


class StatementLog:
    """PostgreSQL's log of every statement, with its duration."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def take(self) -> list[tuple[float, str]]:
        """Milliseconds and text of what has run since the last time."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        found: list[tuple[float, str]] = []
        for line in new.decode(errors="replace").splitlines():
            if match := _DURATION.search(line):
                found.append((float(match[1]), match[2]))
            elif found and line.startswith(("\t", " ")):
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}".lstrip())
        return found


async def _headers(installation: Installation, db: Database, user: str) -> dict[str, str]:
    tokens = Tokens(installation.environment["RINGBACK_SECRET_KEY"], access_seconds=7200, refresh_seconds=7200)
    session_id = uuid4()
    async with db.transaction() as session:
        adding = "INSERT INTO login_sessions (id, user_id, expires_at) VALUES (:id, :user, now() + interval '2 hours')"
        await session.execute(text(adding), {"id": session_id, "user": user})
    return {"Authorization": f"Bearer {tokens.issue('access', user, session_id)}"}


class Measured:
    """The medians of each size, by what was measured."""

    def __init__(self) -> None:
        self.of: dict[str, dict[int, float]] = defaultdict(dict)
        self.slowest: dict[str, str] = {}

    def show(self, title: str, sizes: Sequence[int], *, most: int | None = None) -> None:
        """Print a table, the slowest of the last size first."""
        print(f"\n### {title}\n")
        print("| |" + "".join(f" {size:,} calls |" for size in sizes) + "\n|---|" + "---|" * len(sizes))
        rows = sorted(self.of.items(), key=lambda row: -row[1].get(sizes[-1], 0.0))
        for name, times in rows[:most]:
            print(f"| {name} |" + "".join(f" {times[size]:.2f} |" if size in times else " |" for size in sizes))


async def _log_in(installation: Installation) -> dict[str, dict[str, str]]:
    """The headers of some users."""
    db = Database(installation.database_url, pool_size=2)
    users = [f"USR_{n:08X}" for n in random.sample(range(OPERATOR_NUMBER + 1, USERS + 1), 20)]
    headers = {user: await _headers(installation, db, user) for user in users}
    await db.dispose()
    return headers


async def measure_requests(
    installation: Installation, log: StatementLog, calls: int, requests: int, measured: Measured
) -> None:
    """Each request of `bench.growth_requests`, one at a time."""
    db = Database(installation.database_url, pool_size=2)
    headers = await _log_in(installation)
    users = list(headers)
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=120) as client:
        await OPERATOR.sign_in(client, db)
        for request in REQUESTS:
            taken: list[float] = []
            for user in users:  # what is asked for once is in memory then
                await request.send(client, headers[user], values_of(user, calls, -1))
            for n in range(requests + 2):
                user = random.choice(users)
                values = values_of(user, calls, n)
                log.take()
                await request.send(client, headers[user], values)
                ran = log.take()
                if n >= 2:  # the first two open connections and plan
                    taken.append(sum(milliseconds for milliseconds, _ in ran))
                    measured.slowest[request.name] = max(ran, default=(0.0, "nothing"))[1]
            measured.of[request.name][calls] = statistics.median(taken)
    await db.dispose()


def _short(statement: str) -> str:
    """The statement's beginning, and its tables, so that a reader finds it in the code."""
    words = re.sub(r"\s+", " ", statement).strip().replace("|", "¦")
    tables = re.findall(r"(?:FROM|JOIN|INTO|UPDATE) ([a-z_]+)", words)
    return f"{words.split(' ', 1)[0]} {', '.join(dict.fromkeys(tables))} `{hash(words) & 0xFFFF:04x}`"


def measure_workers(installation: Installation, log: StatementLog, calls: int, measured: Measured) -> None:
    """What the workers run for some calls, and the sweep meanwhile."""
    for queue in ("calls", "transcripts", "callbacks"):
        installation.start_worker(queue, queue)
    time.sleep(4)
    log.take()
    base = {"base_url": installation.base_url, "timeout": 60}
    with httpx.Client(**base) as client:  # type: ignore[arg-type]
        ordered = [OPERATOR.order(client) for _ in range(_ORDERS)]
        deadline = time.monotonic() + 180
        while ordered and time.monotonic() < deadline:
            time.sleep(1)
            ordered = [call for call in ordered if OPERATOR.is_pending(client, call)]
    if ordered:
        raise RuntimeError(f"{len(ordered)} calls have no transcript after three minutes")
    by_statement: dict[str, list[float]] = defaultdict(list)
    for milliseconds, statement in log.take():
        by_statement[statement].append(milliseconds)
    for statement, times in by_statement.items():
        if len(times) >= 5 and statement:
            name = _short(statement)
            measured.of[name][calls] = statistics.median(times)
            measured.slowest[name] = statement
    for queue in ("calls", "transcripts", "callbacks"):
        process = installation.processes.pop(queue)
        process.terminate()
        process.wait()


async def plans(url: str, statements: dict[str, str], folder: Path) -> list[str]:
    """Write each statement's plan to a file. Returns those that read a big table from end to end."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    whole = []
    async with engine.connect() as connection:
        await connection.exec_driver_sql(_PLAN)
        for name, statement in statements.items():
            if not statement.upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
                continue
            lines = await connection.execute(
                text("SELECT * FROM pg_temp.plan_of(:statement)"), {"statement": statement}
            )
            plan = "\n".join(lines.scalars())
            (folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.txt").write_text(f"{statement}\n\n{plan}\n")
            if re.search(r"Seq Scan on (calls|call_events|transcripts|deliveries|recordings|delivery_attempts)", plan):
                whole.append(name)
    await engine.dispose()
    return whole


async def _retention(installation: Installation, calls: int) -> None:
    await growth_retention.measure(installation, calls, await _log_in(installation))


async def _size(url: str) -> str:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        size = await connection.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
    await engine.dispose()
    return str(size)


class _Growth:
    """What was measured of each size."""

    def __init__(self, sizes: Sequence[int], requests: int, plans: Path | None) -> None:
        self._sizes = sizes
        self._requests = requests
        self._plans = plans
        self._of_requests, self._of_workers = Measured(), Measured()

    def run(self) -> None:
        """Print Markdown."""
        for calls in self._sizes:
            with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
                self._run(Path(folder), calls)
        self._of_workers.show("… and for a statement of the workers: the slowest", self._sizes, most=15)

    def _run(self, folder: Path, calls: int) -> None:
        port = free_port()
        installation = Installation(folder, {**outside.settings(port), "RINGBACK_SIMULATOR_SPEED": "0.2"})
        logged = {"log_min_duration_statement": "0", "log_parameter_max_length": "0"}
        installation.postgres = Postgres(folder, max_wal_size="8GB", **logged)
        try:
            installation.start_servers()
            began = time.monotonic()
            asyncio.run(fill(installation.database_url, calls))
            size = asyncio.run(_size(installation.database_url))
            print(f"{calls:,} calls: filled in {time.monotonic() - began:.0f} s, {size}", flush=True)
            installation.start("outside", "bench.outside", str(port))
            installation.start_api()
            installation.wait_until_ready("/healthz")
            log = StatementLog(folder / "postgres.log")
            asyncio.run(measure_requests(installation, log, calls, self._requests, self._of_requests))
            measure_workers(installation, log, calls, self._of_workers)
            if calls == self._sizes[-1]:
                self._of_requests.show("Milliseconds of PostgreSQL for a request, median", self._sizes)
                # The console's lists are planned with their values, and have no generic plan.
                of_api = {name: one for name, one in self._of_requests.slowest.items() if "console" not in name}
                whole = asyncio.run(
                    plans(installation.database_url, of_api | self._of_workers.slowest, self._plans or folder)
                )
                print(f"\nStatements whose plan reads a big table whole: {', '.join(whole) or 'none'}", flush=True)
                asyncio.run(_retention(installation, calls))
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--plans", type=Path, help="a folder for the plans")
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    _Growth(options.calls, options.requests, options.plans).run()


if __name__ == "__main__":
    main()
