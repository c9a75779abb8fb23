"""What metrics and traces cost a request: the same API with and without them, side by side on one database.

    off       the shipped server with its defaults
    A/A       a second one: the difference between two equal servers is the noise
    metrics   with RINGBACK_METRICS_PORT, scraped every second
    traces    and with RINGBACK_TRACES_URL. Its collector is nobody: spans are made, and then dropped

Run it as `python -m bench.monitoring`. Each run of a server is next to a fresh run of `off`, in rotated order, and the
result is the median of the ratios, with the extremes. `--before FOLDER` adds the server of another checkout. It needs
`wrk`.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

from bench.api import ApiBench, Figure, Target, prepare, spread
from bench.installation import Installation, free_port

Run = Callable[[Target], Figure]
_HERE = Path(__file__).parents[1]


def _start(installation: Installation, name: str, checkout: Path, **settings: str) -> Target:
    """Start another API, of this checkout, and wait until it answers."""
    port = free_port()
    with (installation.data_dir / "apis.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**installation.environment, "RINGBACK_PORT": str(port), **settings},
            start_new_session=True,
        )
    installation.processes[name] = process
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=3):
                return Target(name, port, process.pid)
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{name} did not start")
            time.sleep(0.1)


def _compare(run: Run, targets: dict[str, Target], rounds: int, title: str) -> None:
    names = [name for name in targets if name != "off"]
    pairs: dict[str, list[tuple[Figure, Figure]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            first, second = (targets["off"], targets[name]) if turn % 2 else (targets[name], targets["off"])
            figures = {first.name: run(first), second.name: run(second)}
            pairs[name].append((figures["off"], figures[name]))
    print(f"\n### {title}\n\n| | rate / off | CPU / off |\n|---|---|---|")
    for name, runs in pairs.items():
        rate = spread([figure.rate / off.rate for off, figure in runs])
        print(f"| {name} | {rate} | {spread([figure.cpu / off.cpu for off, figure in runs])} |", flush=True)


def _scrape(port: str, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            answer.read()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--before", type=Path, help="a checkout to compare with, of the same tables or older ones")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("The load generator wrk is missing. On Debian and Ubuntu: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        stop = threading.Event()
        try:
            installation.start_servers()
            installation.start_api()
            ports = [str(free_port()) for _ in range(2)]
            nobody = {"RINGBACK_TRACES_URL": f"http://127.0.0.1:{free_port()}/v1/traces"}
            targets = {
                "A/A": _start(installation, "A/A", _HERE),
                "metrics": _start(installation, "metrics", _HERE, RINGBACK_METRICS_PORT=ports[0]),
                "traces": _start(installation, "traces", _HERE, RINGBACK_METRICS_PORT=ports[1], **nobody),
            }
            if options.before is not None:
                targets["before"] = _start(installation, "before", options.before.absolute())
            installation.wait_until_ready("/healthz")
            token, call_id = asyncio.run(prepare(installation))
            targets["off"] = Target("off", installation.port, installation.processes["api"].pid)
            bench = ApiBench(installation, token, call_id, options.seconds)
            for target in targets.values():
                bench.poll(target)  # warm up
                bench.create(target)
            for port in ports:
                threading.Thread(target=_scrape, args=(port, stop), daemon=True).start()
            print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {options.rounds} × {options.seconds:.0f} s")
            _compare(bench.poll, targets, options.rounds, "Poll a transcript")
            _compare(bench.create, targets, options.rounds, "Create a call")
        finally:
            stop.set()
            installation.stop()


if __name__ == "__main__":
    main()
