"""Replicas take over under load. `python -m bench.failover` has more faults, and the times."""

from pathlib import Path

from bench.failover import run_failover

PATIENCE_SECONDS = 30.0
"""docs/production.md promises it."""


async def test_no_call_is_lost_or_dialed_twice_when_replicas_take_over(tmp_path: Path) -> None:
    """First Valkey's, then PostgreSQL's. `demoted`: for a moment, the address is that of a server that refuses to
    write."""
    result = await run_failover(tmp_path, "valkey", "demoted", orders=8, orders_per_second=2)
    print(result)
    assert result.violations == []
    assert result.accepted >= 24
    assert result.statuses.keys() <= {"busy", "completed", "failed"}
    assert result.outage_seconds < PATIENCE_SECONDS
