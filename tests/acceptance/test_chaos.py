"""A short version of `make chaos`: real kills, real outages, the simulator's own ledger.

Of the faults of arq's queue there is a shorter one in `tests/integration/test_worker_process.py`.
"""

from pathlib import Path

from bench.chaos import run_chaos
from tests.speech import speech_endpoint

CALLS = 20


async def test_nothing_is_lost_or_dialled_twice(tmp_path: Path) -> None:
    # As slow as real recognition, so that workers are killed in the middle of it
    async with speech_endpoint(seconds=1.5) as speech:
        report = await run_chaos(tmp_path, calls=CALLS, kills=4, faults="servers", settings=speech)
    print(report)
    assert not report.violations
    assert len(report.accepted) >= CALLS
    assert report.kills == 4
    assert len(report.faults) == report.planned
