"""How long a filtered page of recent calls takes among a million: `make bench`, or `python -m bench.recent` alone."""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app import call_views, vendor
from app.call_views import Filters, NumberFilter
from app.db import Database
from app.security import Tokens
from bench.installation import Installation

USERS = 200
_WANTED = {"status": "NoAnswered", "customer_number": "123", "date_from": "2026-01-01T00:00:00Z"}

_FILL = """
INSERT INTO users (id, email, password_hash)
    SELECT 'USR_' || lpad(upper(to_hex(n)), 8, '0'), n || '@example.com', '' FROM generate_series(1, :users) n;
INSERT INTO calls (id, user_id, customer_number, agent_number, status, created_at, dialed_at, answered_at, ended_at)
    SELECT 'call_' || lpad(n::text, 16, '0'), 'USR_' || lpad(upper(to_hex(1 + n % :users)), 8, '0'),
           '9199' || lpad((n::bigint * 7919 % 100000000)::text, 8, '0'), '918888888888',
           (ARRAY['completed', 'completed', 'no_answer', 'busy', 'failed'])[1 + n / :users % 5],
           now() - n * interval '20 seconds', now() - n * interval '20 seconds',
           CASE WHEN n / :users % 5 < 2 THEN now() - n * interval '20 seconds' + interval '10 seconds' END,
           now() - n * interval '20 seconds' + interval '60 seconds'
    FROM generate_series(1, :calls) n;
INSERT INTO transcripts (id, call_id, user_id, status, summary, outcome, history, created_at)
    SELECT lpad(to_hex(n), 24, '0'), 'call_' || lpad(n::text, 16, '0'),
           'USR_' || lpad(upper(to_hex(1 + n % :users)), 8, '0'),
           CASE WHEN n / :users % 5 < 2 THEN 'ready' ELSE 'failed' END, 'They talked', 'Interested',
           jsonb_build_array(jsonb_build_object(
               'role', 'agent', 'content', repeat('hello ', 40) || 'order' || n, 'start', 0, 'end', 5
           )),
           now() - n * interval '20 seconds'
    FROM generate_series(1, :calls) n;
"""


async def fill(url: str, calls: int) -> None:
    """Fill the tables. Uses its own connection, because the server's statements end after 30 s."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in _FILL.strip().removesuffix(";").split(";"):
            of_it = {"users": USERS, "calls": calls}
            wanted = {name: value for name, value in of_it.items() if f":{name}" in statement}
            await connection.execute(text(statement), wanted)
        for table in ("calls", "transcripts"):
            await connection.execute(text(f"VACUUM ANALYZE {table}"))
    await engine.dispose()


async def _log_in(db: Database, tokens: Tokens, user: str) -> str:
    session_id = uuid4()
    async with db.transaction() as session:
        await session.execute(
            text("INSERT INTO login_sessions (id, user_id, expires_at) VALUES (:id, :user, now() + interval '1 hour')"),
            {"id": session_id, "user": user},
        )
    return tokens.issue("access", user, session_id)


async def _plan(db: Database, user: str) -> str:
    """The plan of the page's statement, as the server sends it."""
    filters = Filters(
        statuses=vendor.statuses_shown_as(_WANTED["status"]),
        customer_number=NumberFilter(_WANTED["customer_number"]),
        from_instant=datetime.fromisoformat(_WANTED["date_from"]),
    )
    statement = call_views.page(user, filters, limit=20, offset=0)
    async with db.statement() as connection:
        compiled = statement.compile(connection.engine, compile_kwargs={"render_postcompile": True})
        rows = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY ON) {compiled}",
            tuple(compiled.params[name] for name in compiled.positiontup or ()),
        )
        return "\n".join(row[0] for row in rows)


async def measure(installation: Installation, *, calls: int, requests: int = 200) -> None:
    """Fill the installation's tables, and print Markdown."""
    db = Database(installation.database_url, pool_size=2)
    tokens = Tokens(installation.environment["RINGBACK_SECRET_KEY"], access_seconds=3600, refresh_seconds=3600)
    await fill(installation.database_url, calls)
    users = [f"USR_{n:08X}" for n in random.sample(range(1, USERS + 1), 20)]
    headers = [{"Authorization": f"Bearer {await _log_in(db, tokens, user)}"} for user in users]
    print(f"\n### Recent calls: a page of 20 among {calls:,} calls of {USERS} users\n")
    print("| | median ms | p95 ms | most ms |\n|---|---|---|---|")
    async with httpx.AsyncClient(base_url=installation.base_url, timeout=60) as client:
        for name, params in (
            ("nothing (/healthz)", None),
            ("the newest", {}),
            ("by status, part of a number, date", _WANTED),
            ("by transcript_status", {"transcript_status": "ready"}),
            ("the last page", {"page": str(calls // USERS // 20)}),
        ):
            taken = []
            for n in range(requests):
                began = time.perf_counter()
                if params is None:
                    answer = await client.get("/healthz")
                else:
                    answer = await client.get("/api/calls/recent", params=params, headers=headers[n % len(headers)])
                taken.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, answer.text
                assert params is None or answer.json()["data"]["calls"], "an empty page proves nothing"
            taken.sort()
            p95 = taken[int(requests * 0.95)]
            print(f"| {name} | {statistics.median(taken):.1f} | {p95:.1f} | {taken[-1]:.1f} |", flush=True)
    print(f"\n```\n{await _plan(db, users[0])}\n```")
    await db.dispose()


def run(calls: int) -> None:
    """Run in an installation of its own."""
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        try:
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")
            asyncio.run(measure(installation, calls=calls))
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    run(options.calls)


if __name__ == "__main__":
    main()
