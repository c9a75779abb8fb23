"""A short version of `make chaos`: real kills, real outages, the simulator's own ledger.

Of the faults of arq's queue there is a shorter one in `tests/integration/test_worker_process.py`.
"""

from pathlib import Path

from bench.chaos import run_chaos


async def test_nothing_is_lost_or_dialled_twice(tmp_path: Path) -> None:
    report = await run_chaos(tmp_path, calls=40, kills=4, faults="servers")
    print(report)
    assert not report.violations
    assert len(report.accepted) >= 40
    assert report.kills == 4
    assert len(report.faults) == report.planned
