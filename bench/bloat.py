"""What the settings of migration 0016 do for the table of tasks: `python -m bench.bloat`.

Tasks come, are claimed, have their leases renewed and go, 500 a second, in two installations side by side: one as
migrated, one with PostgreSQL's defaults. Three minutes, because autovacuum looks at a table once a minute.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from app import accounts, lanes
from app.db import Database
from bench.installation import Installation

_AT_ONCE = 50
_CYCLES_PER_SECOND = 10
_LANE = "deliver"
_CALLS = """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at)
    SELECT 'call_' || lpad(n::text, 16, '0'), :user, '919999999999', '918888888888', 'busy', now()
    FROM generate_series(1, 5000) n
"""
_DEFAULTS = """
ALTER TABLE tasks RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)
"""
_ADD = f"""
INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'deliver', 'callbacks', id, user_id, '{_LANE}' FROM calls ORDER BY id OFFSET :first LIMIT {_AT_ONCE}
"""
_RENEW = "UPDATE tasks SET lease_until = now() + interval '30 seconds' WHERE lease_until IS NOT NULL"
_FINISH = "DELETE FROM tasks WHERE lease_until IS NOT NULL"
_SIZE = """
SELECT pg_relation_size('tasks') / 1024, pg_indexes_size('tasks') / 1024, n_dead_tup, autovacuum_count,
       round(100.0 * n_tup_hot_upd / greatest(n_tup_upd, 1))
FROM pg_stat_user_tables WHERE relname = 'tasks'
"""


async def _churn(name: str, url: str, seconds: float, *, defaults: bool) -> str:
    """The row of the table that is printed."""
    db = Database(url, pool_size=2)
    async with db.transaction() as session:
        user = await accounts.create_user(session, "bloat@example.com", "a benchmark's password")
        await session.execute(text(_CALLS), {"user": user.id})
        if defaults:
            await session.execute(text(_DEFAULTS))
    claims: list[float] = []
    began, cycle = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        await asyncio.sleep(max(0.0, began + cycle / _CYCLES_PER_SECOND - time.monotonic()))
        async with db.statement() as connection:
            await connection.execute(text(_ADD), {"first": cycle * _AT_ONCE % 5000})
        claiming = time.perf_counter()
        claimed = await lanes.claim(db, _LANE, limit=_AT_ONCE, lease_seconds=30)
        claims.append((time.perf_counter() - claiming) * 1000)
        assert len(claimed.tasks) == _AT_ONCE
        async with db.statement() as connection:
            await connection.execute(text(_RENEW))
            await connection.execute(text(_FINISH))
        cycle += 1
    some = len(claims) // 10
    async with db.statement() as connection:
        table, indexes, dead, vacuums, hot = (await connection.execute(text(_SIZE))).one()
    await db.dispose()
    first, last = statistics.median(claims[:some]), statistics.median(claims[-some:])
    return f"| {name} | {first:.1f} | {last:.1f} | {table} | {indexes} | {dead} | {vacuums} | {hot:.0f} |"


async def _both(installations: list[Installation], seconds: float) -> None:
    migrated, plain = [installation.database_url for installation in installations]
    rows = await asyncio.gather(
        _churn("as migrated", migrated, seconds, defaults=False),
        _churn("PostgreSQL's defaults", plain, seconds, defaults=True),
    )
    print(f"\n| | claim of {_AT_ONCE}: ms at first | at the end | table KB | indexes KB | dead rows ", end="")
    print("| vacuums | HOT % |")
    print("|" + "---|" * 8)
    print("\n".join(rows))


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=170)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installations = [Installation(Path(folder) / str(n)) for n in range(2)]
        try:
            for installation in installations:
                installation.data_dir.mkdir()
                installation.start_servers()
            asyncio.run(_both(installations, options.seconds))
        finally:
            for installation in installations:
                installation.stop()


if __name__ == "__main__":
    main()
