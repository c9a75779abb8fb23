"""Calls on a real Asterisk: how soon a telephone rings, how many calls at once, how soon a lost listener is replaced.

    first INVITE    from sending the POST to the INVITE's arrival at the agent's telephone
    at once         calls at the same moment, all joined and recorded; each recording is compared with both voices
    takeover        the worker that listens is killed -9, until another is connected and has tracked every call

Asterisk, SIPp, PostgreSQL, Valkey, the API and the workers share this machine. Recordings are not transcribed here.
`docs/benchmarks.md` says what that costs.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import soundfile
from sqlalchemy import text

from app import accounts, call_rules
from app.call_state import TERMINAL
from app.db import Database
from bench.installation import Installation, processes
from lab.asterisk import AsteriskServer, free_port
from lab.phones import Phones
from lab.voices import likeness, voice

CONVERSATION = Path(__file__).parents[1] / "app/telephony/conversations/callback.wav"
PASSWORD = "a benchmark's password"
BUSY, AGENT, CUSTOMER = "486", "100", "220"  # this customer hangs up after 20 s
ALIKE = 0.8
"""The least likeness of a recorded side and its voice. Another voice has less than half of it (`tests/asterisk`)."""


class AsteriskBench:
    def __init__(self, installation: Installation, server: AsteriskServer, phones: Phones, db: Database) -> None:
        self._installation = installation
        self._server = server
        self._phones = phones
        self._db = db
        self._numbers = count()
        self._voices = {side: voice(phones, side) for side in ("agent", "customer")}

    async def log_in(self) -> None:
        self._api = httpx.AsyncClient(base_url=f"{self._installation.base_url}/api/developer", timeout=30)
        answer = await self._api.post("/login", json={"email": "bench@example.com", "password": PASSWORD})
        self._api.headers["Authorization"] = f"Bearer {answer.json()['data']['access_token']}"

    async def first_invite(self, calls: int) -> None:
        posted = {}
        for _ in range(calls):
            agent = self._number(BUSY)
            posted[agent] = datetime.now(UTC)
            await self._place(agent, self._number(CUSTOMER))
            await asyncio.sleep(0.5)
        await self._wait_for_open_tasks()
        called = {invite.number: invite.at for invite in self._phones.invites()}
        taken = sorted((called[agent] - at).total_seconds() * 1000 for agent, at in posted.items())
        print(f"\n### POST to INVITE on the wire, {calls} calls one after another\n")
        p95 = taken[int(calls * 0.95) - 1]
        print(f"median {statistics.median(taken):.0f} ms, p95 {p95:.0f} ms, most {taken[-1]:.0f} ms")

    async def at_once(self, sizes: list[int]) -> None:
        print("\n### Calls at the same moment, each 20 s of talk, both sides recorded\n")
        print(
            "| calls | joined | recorded | least likeness: agent, customer | CPU of one core: Asterisk | Ringback | "
            "PostgreSQL and Valkey | SIPp |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for size in sizes:
            before, began = self._cpu(), time.monotonic()
            numbers = [(self._number(AGENT), self._number(CUSTOMER)) for _ in range(size)]
            placed = await asyncio.gather(*(self._place(*pair) for pair in numbers))
            await self._wait_for_open_tasks()
            seconds = time.monotonic() - began
            used = {what: (cpu - before[what]) / seconds for what, cpu in self._cpu().items()}
            joined, alike = await self._recordings(placed)
            recorded = sum(min(pair) > ALIKE for pair in alike)
            least = ", ".join(f"{min(side):.2f}" for side in zip(*alike, strict=True))
            percent = " | ".join(f"{share * 100:.0f} %" for share in used.values())
            print(f"| {size} | {joined} | {recorded} | {least} | {percent} |", flush=True)
            if not joined == recorded == size:
                sys.exit(f"FAILED: of {size} calls {joined} were joined and {recorded} recorded with the right voices")

    async def takeover(self, kills: int) -> None:
        for name in ("calls-2", "calls-3"):
            self._installation.start_worker(name, "calls")
        taken = []
        for _ in range(kills):
            await asyncio.sleep(5)  # until all have started again
            leader = await self.leader()
            (name,) = [
                name
                for name in self._installation.processes
                if name.startswith("calls")
                and f"calls-{leader[:6]}" in (self._installation.data_dir / f"{name}.log").read_text()
            ]
            process = self._installation.processes[name]
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            while await self.leader() in ("", leader):
                await asyncio.sleep(0.02)
            taken.append(time.monotonic() - began)
            await asyncio.to_thread(process.wait)
            (self._installation.data_dir / f"{name}.log").unlink()
            self._installation.start_worker(name, "calls")
        print(f"\n### A listener killed -9, {kills} times, among three workers: until another is connected\n")
        print(f"median {statistics.median(taken):.1f} s, most {max(taken):.1f} s")

    async def leader(self) -> str:
        """The worker that is connected now, or an empty string."""
        query = "SELECT replace(worker_id::text, '-', '') FROM listeners WHERE connected_since IS NOT NULL"
        async with self._db.statement() as connection:
            return str((await connection.execute(text(query))).scalar() or "")

    async def _place(self, agent: str, customer: str) -> str:
        answer = await self._api.post(
            "/calls/click2call", json={"customer_number": f"+{customer}", "agent_number": f"+{agent}"}
        )
        answer.raise_for_status()
        return str(answer.json()["data"]["call_id"])

    def _number(self, behaviour: str) -> str:
        return f"91{behaviour}{next(self._numbers):07}"

    async def _wait_for_open_tasks(self) -> None:
        """Wait until every call has ended, and every recording is stored."""
        query = (
            "SELECT (SELECT count(*) FROM tasks WHERE kind <> 'transcribe') + "
            f"(SELECT count(*) FROM calls WHERE status NOT IN ({', '.join(repr(str(status)) for status in TERMINAL)}))"
        )
        while True:
            async with self._db.statement() as connection:
                if not (await connection.execute(text(query))).scalar():
                    return
            await asyncio.sleep(0.2)

    async def _recordings(self, calls: list[str]) -> tuple[int, list[tuple[float, float]]]:
        """How many of these calls were joined, and how much each recording resembles the agent's and the customer's
        voice."""
        query = (
            "SELECT c.status, r.storage_key FROM calls c LEFT JOIN recordings r ON r.call_id = c.id "
            "WHERE c.id = ANY(:calls)"
        )
        async with self._db.statement() as connection:
            rows = (await connection.execute(text(query), {"calls": calls})).all()
        statuses = Counter(status for status, _ in rows)
        alike = []
        for _, key in rows:
            if key is None:
                alike.append((0.0, 0.0))
                continue
            samples, _ = soundfile.read(self._installation.data_dir / key, always_2d=True)
            agent, customer = (
                likeness(samples[:, channel], self._voices[side]) for channel, side in enumerate(self._voices)
            )
            alike.append((agent, customer))
        return statuses["completed"], alike

    def _cpu(self) -> dict[str, float]:
        """Seconds of CPU that each part has used."""
        found = processes()
        postmaster = int((self._installation.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        parts: dict[str, set[int | None]] = {
            "Asterisk": {self._server.pid},
            "Ringback": {process.pid for process in self._installation.processes.values()},
            "servers": {postmaster, self._installation.valkey.pid, *[pid for pid, up, _ in found if up == postmaster]},
            "SIPp": {self._phones.pid},
        }
        return {what: sum(cpu for pid, _, cpu in found if pid in pids) for what, pids in parts.items()}


async def _run(folder: Path, options: argparse.Namespace) -> None:
    phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), conversation=CONVERSATION)
    server = AsteriskServer(folder / "asterisk", phones_port=phones.port)
    installation = Installation(folder / "ringback", server.settings())
    try:
        phones.start()
        server.start()
        await asyncio.to_thread(installation.start_servers)
        installation.start_api()
        installation.start_worker("calls-1", "calls")
        db = Database(installation.database_url, pool_size=3)
        async with db.transaction() as session:
            await accounts.create_user(session, "bench@example.com", PASSWORD)
            await call_rules.change(session, None, {"destinations": "+91"}, ZoneInfo("UTC"))  # the lab's numbers
        await asyncio.to_thread(installation.wait_until_ready, "/healthz")
        bench = AsteriskBench(installation, server, phones, db)
        await bench.log_in()
        while not await bench.leader():
            await asyncio.sleep(0.1)
        await bench.first_invite(options.calls)
        await bench.at_once(options.at_once)
        await bench.takeover(options.kills)
        await db.dispose()
    finally:
        installation.stop()
        server.stop()
        phones.stop()


def main() -> None:
    """Prints Markdown. Exits with 1 if a call was not joined, or not recorded with the right voices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50, help="for the first INVITE")
    parser.add_argument("--at-once", type=int, nargs="*", default=[10, 25, 50])
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_run(Path(folder), options))


if __name__ == "__main__":
    main()
