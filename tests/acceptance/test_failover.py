"""A replica takes over under load. `python -m bench.failover` has more faults, and the times."""

from pathlib import Path

import pytest

from bench.failover import run_failover

PATIENCE_SECONDS = 30.0
"""docs/production.md promises it."""


@pytest.mark.parametrize("fault", ["demoted", "valkey"])
async def test_no_call_is_lost_or_dialed_twice_when_a_replica_takes_over(tmp_path: Path, fault: str) -> None:
    """`demoted`: for a moment, the address is that of a server that refuses to write."""
    result = await run_failover(tmp_path, fault, orders=10)
    print(result)
    assert result.violations == []
    assert result.accepted >= 20
    assert result.statuses.keys() <= {"busy", "completed", "failed"}
    assert result.outage_seconds < PATIENCE_SECONDS
