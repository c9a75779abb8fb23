"""What a request costs: in this server and in a naive one, each compared with bare FastAPI in the same minute.

    floor    a FastAPI route that answers and does nothing (bench/apps/floor.py)
    A/A      a second copy of it: the difference between two equal servers is the noise
    naive    the routes as tutorials write them, on the same tables (bench/apps/naive.py)
    ours     the shipped server

Run it as `make bench`. Rounds are short and in rotated order. Each run of a server is next to a fresh run of the floor,
and the result is the median of the ratios, with the extremes. CPU is that of the server, PostgreSQL and Valkey
together. A response that is not 2xx fails the run. Needs `wrk`.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import Request, urlopen

from passlib.hash import argon2

from app import accounts
from app.db import Database
from app.security import Tokens
from bench import receivers, recent
from bench.installation import Installation, free_port, processes

EMAIL, PASSWORD = "bench@example.com", "a benchmark's password"
NAIVE_EMAIL = "naive@example.com"
CONNECTIONS, STORMERS = 16, 32
PEOPLE = {"customer_number": "919999999999", "agent_number": "918888888888"}
# the naive server ignores the callback_url
ORDER = json.dumps({**PEOPLE, "callback_url": "https://crm.example.com/hooks/calls"})


@dataclass(frozen=True)
class Target:
    name: str
    port: int
    pid: int
    email: str = EMAIL


@dataclass(frozen=True)
class Figure:
    """One run: requests per second, CPU milliseconds per request, and the slowest hundredth in milliseconds."""

    rate: float
    cpu: float
    p99: float


class ApiBench:
    def __init__(self, installation: Installation, token: str, call_id: str, seconds: float) -> None:
        self._installation = installation
        self._seconds = seconds
        self._headers = ["-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json"]
        self._poll = f"/api/developer/calls/{call_id}/transcript"

    def poll(self, target: Target) -> Figure:
        return self._measure(target, self._poll)

    def create(self, target: Target) -> Figure:
        return self._measure(target, "/api/developer/calls/click2call", body=ORDER)

    def poll_in_storm(self, target: Target) -> Figure:
        """Polls, while 32 clients log in as fast as they can."""
        login = json.dumps({"email": target.email, "password": PASSWORD})
        storm = self._wrk(target, "/api/developer/login", body=login, connections=STORMERS, seconds=self._seconds + 1)
        time.sleep(0.5)
        figure = self.poll(target)
        _figures_of(storm)  # a refused login fails the run, too
        return figure

    def _measure(self, target: Target, path: str, body: str | None = None) -> Figure:
        before = self._cpu(target)
        output = self._wrk(target, path, body=body, connections=CONNECTIONS, seconds=self._seconds)
        requests, rate, p99 = _figures_of(output)
        return Figure(rate, (self._cpu(target) - before) / max(1, requests) * 1000, p99)

    def _wrk(
        self, target: Target, path: str, *, body: str | None, connections: int, seconds: float
    ) -> "subprocess.Popen[str]":
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:.0f}s",
            "--latency",
            "--timeout",
            "60s",
            *self._headers,
        ]
        if body is not None:
            script = self._installation.data_dir / f"{abs(hash(body))}.lua"
            script.write_text(f'wrk.method = "POST"\nwrk.body = {json.dumps(body)}\n')
            command += ["-s", str(script)]
        url = f"http://127.0.0.1:{target.port}{path}"
        return subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True)

    def _cpu(self, target: Target) -> float:
        """Seconds of CPU that the server, PostgreSQL and Valkey have used. The floor uses only its server."""
        postmaster = int((self._installation.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        backends = [pid for pid, parent, _ in processes() if parent == postmaster]
        mine = {target.pid, postmaster, *backends, self._installation.valkey.pid}
        # The parent accounts for the CPU of a backend that has ended.
        return sum(seconds for pid, _, seconds in processes() if pid in mine)


def _figures_of(run: "subprocess.Popen[str]") -> tuple[int, float, float]:
    output, _ = run.communicate()
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"A request failed:\n{output}")
    requests = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s)", output)
    if not (requests and rate and p99):
        sys.exit(f"Unexpected output of wrk:\n{output}")
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return int(requests[1]), float(rate[1]), float(p99[1]) * unit


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def _compare(run: Callable[[Target], Figure], targets: dict[str, Target], rounds: int, title: str) -> None:
    pairs: dict[str, list[tuple[Figure, Figure]]] = {"A/A": [], "naive": [], "ours": []}
    names = list(pairs)
    for turn in range(rounds):
        for name in names[turn % 3 :] + names[: turn % 3]:
            pairs[name].append((run(targets["floor"]), run(targets[name])))
    print(f"\n### {title}\n")
    print("| | rate / floor | floor's CPU / its CPU | requests/s | CPU ms/request | p99 ms |\n|" + "---|" * 6)
    for name, runs in pairs.items():
        rates = [figure.rate / floor.rate for floor, figure in runs]
        cpu = [floor.cpu / figure.cpu for floor, figure in runs]
        median = [statistics.median(getattr(figure, what) for _, figure in runs) for what in ("rate", "cpu", "p99")]
        print(f"| {name} | {spread(rates)} | {spread(cpu)} | {median[0]:.0f} | {median[1]:.3f} | {median[2]:.1f} |")
    both = list(zip(pairs["ours"], pairs["naive"], strict=True))
    ratio = [(ours.rate / ours_floor.rate) / (naive.rate / floor.rate) for (ours_floor, ours), (floor, naive) in both]
    cpu = [(naive.cpu / floor.cpu) / (ours.cpu / ours_floor.cpu) for (ours_floor, ours), (floor, naive) in both]
    print(f"\nours / naive: {spread(ratio)} in requests, {spread(cpu)} in requests per CPU second", flush=True)


def _storm(bench: ApiBench, targets: dict[str, Target], rounds: int) -> None:
    print(f"\n### {CONNECTIONS} pollers while {STORMERS} clients log in without a pause\n")
    print("| | rate in the storm / alone | p99 ms in the storm |\n|---|---|---|")
    kept: dict[str, list[tuple[float, float]]] = {"naive": [], "ours": []}
    for _ in range(rounds):
        for name, figures in kept.items():
            alone, storm = bench.poll(targets[name]), bench.poll_in_storm(targets[name])
            figures.append((storm.rate / alone.rate, storm.p99))
            time.sleep(1)
    for name, figures in kept.items():
        slowest = statistics.median(p99 for _, p99 in figures)
        print(f"| {name} | {spread([ratio for ratio, _ in figures])} | {slowest:.0f} |", flush=True)


def _hand_over(installation: Installation, token: str, calls: int) -> None:
    """The time from the response to the POST until the order reached the provider, by the simulator's ledger."""
    installation.start_worker("calls", "calls")
    time.sleep(3)
    taken = []
    for _ in range(calls):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = Request(f"{installation.base_url}/api/developer/calls/click2call", ORDER.encode(), headers)
        call_id = json.load(urlopen(request))["data"]["call_id"]
        answered = datetime.now(UTC)
        ledger = installation.data_dir / "simulator" / call_id[-2:] / f"{call_id}.jsonl"
        while not ledger.exists() or not ledger.read_text():
            time.sleep(0.005)
        placed = datetime.fromisoformat(json.loads(ledger.read_text().splitlines()[0])["at"])
        taken.append((placed - answered).total_seconds() * 1000)
        time.sleep(0.2)
    taken.sort()
    print(f"\n### Hand-over: POST's answer to the order at the provider, {calls} calls one after another\n")
    print(
        f"median {statistics.median(taken):.0f} ms, p95 {taken[int(calls * 0.95) - 1]:.0f} ms, most {taken[-1]:.0f} ms"
    )


async def prepare(installation: Installation) -> tuple[str, str]:
    """Two users, a token for each server, and a call to poll."""
    db = Database(installation.database_url)
    tokens = Tokens(installation.environment["RINGBACK_SECRET_KEY"], access_seconds=7200, refresh_seconds=7200)
    async with db.transaction() as session:
        user = await accounts.create_user(session, EMAIL, PASSWORD)
        naive = await accounts.create_user(session, NAIVE_EMAIL, PASSWORD)
        naive.password_hash = argon2.hash(PASSWORD)  # type: ignore[no-untyped-call]
        login = await accounts.open_login(session, user, seconds=7200)
    await db.dispose()
    token = tokens.issue("access", user.id, login.session_id)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = Request(f"{installation.base_url}/api/developer/calls/click2call", ORDER.encode(), headers)
    answer = await asyncio.to_thread(lambda: json.load(urlopen(request)))
    return token, answer["data"]["call_id"]


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("The load generator wrk is missing. On Debian and Ubuntu: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))
        try:
            installation.start_servers()
            installation.start_api()
            ports = {name: free_port() for name in ("floor", "A/A", "naive")}
            for name, app in (("floor", "floor"), ("A/A", "floor"), ("naive", "naive")):
                serve = [f"bench.apps.{app}:app", "--port", str(ports[name]), "--no-access-log", "--log-level", "error"]
                installation.start(name.replace("/", ""), "uvicorn", *serve)
            installation.wait_until_ready("/healthz")
            token, call_id = asyncio.run(prepare(installation))
            targets = {
                name: Target(name, port, installation.processes[name.replace("/", "")].pid)
                for name, port in ports.items()
            }
            targets["naive"] = Target("naive", ports["naive"], targets["naive"].pid, NAIVE_EMAIL)
            targets["ours"] = Target("ours", installation.port, installation.processes["api"].pid)
            bench = ApiBench(installation, token, call_id, options.seconds)
            for target in targets.values():
                bench.poll(target)  # warm up
            print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {options.rounds} × {options.seconds:.0f} s")
            _compare(bench.poll, targets, options.rounds, "Poll a transcript")
            _compare(bench.create, targets, options.rounds, "Create a call")
            _storm(bench, targets, 3)
        finally:
            installation.stop()
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder))  # does not contain the calls that no worker dialed
        try:
            installation.start_servers()
            installation.start_api()
            installation.wait_until_ready("/healthz")
            token, _ = asyncio.run(prepare(installation))
            _hand_over(installation, token, 50)
        finally:
            installation.stop()
    recent.run(calls=1_000_000)
    receivers.run(waiting=10_000)


if __name__ == "__main__":
    main()
