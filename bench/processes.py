"""What a second API process brings: `python -m bench.processes`. Needs `wrk`, and root for the second part.

First each API process may use a whole core. On two cores PostgreSQL and the client take a part of both, so the second
process has less than a core. Then a control group gives each API process a fifth of a core, and there is room for all.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.api import ApiBench, Figure, Target, prepare
from bench.installation import Installation

_COUNTS = (1, 2)
_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD, _QUOTA = 20_000, 4_000  # microseconds


@contextlib.contextmanager
def _limited(pids: list[int]) -> Iterator[None]:
    """Let each of these processes use a fifth of a core."""
    groups = [_GROUPS / f"ringback-bench-{pid}" for pid in pids]
    for pid, group in zip(pids, groups, strict=True):
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(_QUOTA))
        (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        for pid, group in zip(pids, groups, strict=True):
            (_GROUPS / "cgroup.procs").write_text(str(pid))
            group.rmdir()


def _children(installation: Installation, name: str) -> list[int]:
    parent = psutil.Process(installation.processes[name].pid)
    return [child.pid for child in parent.children()] or [parent.pid]


def measure(installations: dict[int, Installation], benches: dict[int, ApiBench], rounds: int) -> None:
    """Print Markdown."""
    print("\n| | polls/s of 1 process | of 2 | ratio |\n|---|---|---|---|")
    for name, limit in (("a core each", False), ("a fifth of a core each", True)):
        if limit and not os.access(_GROUPS, os.W_OK):
            print(f"| {name} | not measured: it needs root and control groups (version 1) | | |")
            continue
        figures: dict[int, list[Figure]] = {count: [] for count in _COUNTS}
        for turn in range(rounds):
            for count in _COUNTS if turn % 2 else reversed(_COUNTS):
                pids = _children(installations[count], "api")
                with _limited(pids) if limit else contextlib.nullcontext():
                    target = Target("ours", installations[count].port, pids[0])
                    figures[count].append(benches[count].poll(target))
        one, two = ([figure.rate for figure in figures[count]] for count in _COUNTS)
        ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
        print(f"| {name} | {statistics.median(one):.0f} | {statistics.median(two):.0f} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    with contextlib.ExitStack() as stack:
        installations, benches = {}, {}
        for count in _COUNTS:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ringback-bench-"))
            installation = Installation(Path(folder), {"RINGBACK_API_PROCESSES": str(count)})
            stack.callback(installation.stop)
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")
            installations[count] = installation
        for count, installation in installations.items():
            token, call_id = asyncio.run(prepare(installation))[0:2]
            benches[count] = ApiBench(installation, token, call_id, options.seconds)
        time.sleep(2)
        measure(installations, benches, options.rounds)


if __name__ == "__main__":
    main()
