"""A short version of `make chaos`: real kills, real outages, and the simulator's ledger.

A shorter test of the faults of arq's queue is in `tests/integration/test_worker_process.py`.
"""

from pathlib import Path

from bench.chaos import run_chaos
from tests.speech import speech_endpoint

CALLS = 20


async def test_nothing_is_lost_or_dialed_twice(tmp_path: Path) -> None:
    # as slow as real recognition, so that workers are killed during it
    async with speech_endpoint(seconds=1.5) as speech:
        report = await run_chaos(tmp_path, calls=CALLS, kills=4, faults="servers", settings=speech)
    print(report)
    assert not report.violations
    assert len(report.accepted) >= CALLS
    assert report.kills == 4
    assert len(report.faults) == report.planned
