"""Checks that no call is lost or dialed twice while workers and servers are killed. Run it as `make chaos`.

Calls are posted to a whole installation with two workers of each kind, while

    workers are killed -9 in the middle of their tasks       one is frozen past its lease, and thawed
    Valkey is flushed, and killed                             PostgreSQL is stopped at once, as by a power cut
    arq cannot read its queue; the queue is poisoned or full of stale keys; Valkey is gone (`bench.queue_faults`)

The judge reads what the telephony system recorded (`bench.telephony_backends`): the simulator's ledger, or the INVITEs
that reached the telephones of a real Asterisk, which is killed, frozen and cut off as well. Half of the calls are of a
second provider of the same kind, with a pace and a limit of calls at once (`bench.two_providers`). At the end every
call must be there, its people called at most once, by its own provider. It and its transcript must have ended, and its
client must have received both callbacks in order.
"""

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
from sqlalchemy import text

from app import accounts, call_rules, callbacks
from app.db import Database
from bench.delivery_log import DeliveryLog
from bench.installation import Installation
from bench.queue_faults import QueueFaults
from bench.telephony_backends import BACKENDS, InjectedFault, Observed, TelephonyBackend
from bench.two_providers import SECOND_DID, add_second, figures, find_violations
from bench.verdict import PATIENCE_SECONDS, find_lost_and_doubled, list_undelivered, observe, wait_for_ends

LEASE_SECONDS = 5.0
_MOST_STORIES = 5
CALLS_WORKERS = ("calls-1", "calls-2")
CALLBACKS_WORKERS = ("callbacks-1", "callbacks-2")
TRANSCRIPTS_WORKERS = ("transcripts-1", "transcripts-2")
OTHER_WORKERS = CALLBACKS_WORKERS + TRANSCRIPTS_WORKERS
PASSWORD = "chaos and no mercy"
SETTINGS = {
    "RINGBACK_LEASE_SECONDS": str(LEASE_SECONDS),
    "RINGBACK_ANSWER_TIMEOUT_SECONDS": "45",
    "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
}


@dataclass
class ChaosResult:
    """The result of a run. `violations` is empty if no call was lost or doubled."""

    accepted: set[str] = field(default_factory=set)
    refused: int = 0
    kills: int = 0
    planned: int = 0
    faults: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    transcripts: Counter[str] = field(default_factory=Counter)
    ordered: int = 0
    never_arrived: int = 0
    unwritten: int = 0
    most_at_second: int = 0
    limit_of_second: int = 0
    more: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    """The histories of the calls in the violations."""
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"calls accepted             {len(self.accepted)}; {self.refused} posts refused while servers were down",
            f"workers killed -9          {self.kills}, each in the middle of a task",
            f"faults                  {'; '.join(self.faults)}",
            f"calls ended                {dict(self.statuses.most_common())}",
            f"transcripts ended          {dict(self.transcripts.most_common())}",
            f"orders at the provider     {self.ordered}",
            f"right spent, never dialed {self.never_arrived} (reported as failed)",
            f"talks that died unwritten  {self.unwritten} (their transcripts say so)",
            *self.more,
            f"took                       {self.seconds:.0f} s",
            *self.stories,
            *[f"VIOLATION: {violation}" for violation in self.violations],
            f"lost, doubled or endless   {len(self.violations)}",
        ]
        return "\n".join(lines)


class Chaos:
    def __init__(
        self,
        installation: Installation,
        backend: TelephonyBackend,
        deliveries: DeliveryLog,
        db: Database,
        calls: int,
        kills: int,
        faults: str,
    ) -> None:
        self._installation = installation
        self._queue = QueueFaults(installation, db, self._kill_a_calls_worker)
        self._faults = [
            *(self._of_servers(backend) if faults in ("all", "servers") else ()),
            *(self._queue.faults if faults in ("all", "queue") else ()),
        ]
        self._deliveries = deliveries
        self._world = backend
        self._db = db
        self._calls = calls
        self._kills = kills
        self._report = ChaosResult()
        self._broken = False

    async def run(self) -> ChaosResult:
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=self._installation.base_url, timeout=10) as client:
            await asyncio.gather(self._post_all(client), self._break_everything())
        await wait_for_ends(self._db)
        await self._judge(await observe(self._db))
        self._report.seconds = time.monotonic() - began
        return self._report

    async def _post_all(self, client: httpx.AsyncClient) -> None:
        """Post calls for as long as faults are injected, so that calls are in progress all the time."""
        login = await client.post("/api/developer/login", json={"email": "chaos@example.com", "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {login.json()['data']['access_token']}"
        # Each fault takes about ten seconds, each kill two.
        pause = (self._kills * 2.0 + len(self._faults) * 10.0) / self._calls
        while len(self._report.accepted) < self._calls or not self._broken:
            order = {**self._world.new_order(), "callback_url": self._deliveries.url}
            if random.random() < 0.5:
                order["did"] = SECOND_DID
            try:
                answer = await client.post("/api/developer/calls/click2call", json=order)
            except httpx.TransportError:
                self._report.refused += 1
            else:
                if answer.status_code == 200:
                    self._report.accepted.add(answer.json()["data"]["call_id"])
                else:
                    assert answer.status_code == 503, answer.text
                    self._report.refused += 1
            await asyncio.sleep(random.expovariate(1 / pause))

    def _of_servers(self, backend: TelephonyBackend) -> list[InjectedFault]:
        return [
            ("a worker frozen past its lease and thawed", self._freeze_and_thaw),
            ("Valkey flushed", self._flush_valkey),
            ("Valkey killed", self._kill_valkey),
            ("PostgreSQL stopped at once", self._stop_postgres),
            *backend.faults,
        ]

    async def _break_everything(self) -> None:
        await asyncio.sleep(2)
        faults = list(self._faults)
        random.shuffle(faults)
        self._report.planned = planned = len(faults)
        every = max(1, self._kills // (planned + 1))
        tried, killed = 0, time.monotonic()
        while self._report.kills < self._kills and time.monotonic() - killed < PATIENCE_SECONDS:
            tried += 1
            if await self._kill_in_a_task(random.choice(CALLS_WORKERS + (OTHER_WORKERS if tried % 3 == 0 else ()))):
                killed = time.monotonic()
                if faults and self._report.kills >= every * (planned + 1 - len(faults)):
                    await self._inject(faults.pop(0))
            await asyncio.sleep(random.uniform(0.3, 1.5))
        for fault in faults:
            await self._inject(fault)
        self._broken = True

    async def _inject(self, fault: InjectedFault) -> None:
        name, happens = fault
        await happens()
        self._report.faults.append(name)

    async def _kill_in_a_task(self, name: str) -> bool:
        """Freeze the worker, and kill it if it holds a task. Otherwise it goes on.

        A worker that is still starting holds nothing. So only work is interrupted, however slow the machine is.
        """
        process, kind = self._installation.processes[name], name.partition("-")[0]
        process.send_signal(signal.SIGSTOP)
        before = await self._held(kind)
        # Meanwhile the other worker finishes what it holds. A transcript takes longer, but its lease is renewed.
        await asyncio.sleep(0.6 * LEASE_SECONDS if kind == "transcripts" else 0.8)
        if not before & await self._held(kind):
            process.send_signal(signal.SIGCONT)
            return False
        process.kill()
        await asyncio.to_thread(process.wait)
        self._report.kills += 1
        self._installation.start_worker(name, kind)
        return True

    async def _kill_a_calls_worker(self) -> None:
        """Kill the worker, whatever it is doing."""
        name = random.choice(CALLS_WORKERS)
        process = self._installation.processes[name]
        process.kill()
        await asyncio.to_thread(process.wait)
        self._installation.start_worker(name, "calls")

    async def _held(self, kind: str) -> set[str]:
        """Leases of tasks of this kind. For calls, also the dials whose request was sent."""
        query = "SELECT lease_token || ' until ' || lease_until FROM tasks WHERE lease_until > now() AND queue = :kind"
        if kind == "calls":
            query += (
                " UNION ALL SELECT id FROM calls WHERE status = 'dialing' AND provider_reference IS NULL "
                "AND customer_number <> '15005550007' AND dialed_at > now() - interval '1 second'"
            )
        async with self._db.statement() as connection:
            return set((await connection.execute(text(query), {"kind": kind})).scalars())

    async def _freeze_and_thaw(self) -> None:
        process = self._installation.processes[CALLS_WORKERS[0]]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + 3)
        process.send_signal(signal.SIGCONT)

    async def _flush_valkey(self) -> None:
        import redis

        with redis.Redis.from_url(self._installation.redis_url) as client:
            client.flushall()

    async def _kill_valkey(self) -> None:
        await asyncio.to_thread(self._installation.valkey.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(self._installation.start_valkey)

    async def _stop_postgres(self) -> None:
        await asyncio.to_thread(self._installation.postgres.stop, immediately=True)
        await asyncio.sleep(3)
        await asyncio.to_thread(self._installation.postgres.start)

    async def _judge(self, calls: list[Observed]) -> None:
        report = self._report
        placed = await self._world.placed(calls)
        ledger = Counter(leg.call_id for leg in placed if leg.is_agent)
        report.ordered = len(ledger)
        report.never_arrived = sum(call.call_id not in ledger for call in calls)
        report.violations += find_lost_and_doubled(calls, placed, report.accepted)
        for call in calls:
            report.statuses[call.status] += 1
            report.transcripts[call.transcript] += 1
            if call.status == "completed" and call.transcript != "ready":
                if call.call_id in self._world.unwritten and "wrote nothing of this call" in str(call.failure):
                    report.unwritten += 1
                else:
                    report.violations.append(
                        f"{call.call_id} was completed ({call.detail}), and its transcript is {call.transcript}: "
                        f"{call.failure}"
                    )
        most, limit = await self._world.most_at_second(calls), self._world.second_at_once
        report.most_at_second, report.limit_of_second = most, limit
        report.violations += find_violations(placed, {call.call_id: call.did for call in calls}, most, limit)
        report.violations += await self._world.violations(calls)
        report.violations += self._deliveries.violations(calls)
        report.violations += await list_undelivered(self._db)
        report.violations += self._queue.violations
        report.more = [
            *self._queue.figures,
            *figures(placed, most, limit),
            *self._world.figures(),
            *self._deliveries.figures(),
        ]
        wrong = "\n".join(report.violations)
        for call_id in [call.call_id for call in calls if call.call_id in wrong][:_MOST_STORIES]:
            try:
                report.stories.append(await asyncio.to_thread(self._installation.run, "calls", "show", call_id))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                report.stories.append(str(error))


async def run_chaos(
    data_dir: Path,
    *,
    calls: int,
    kills: int,
    backend: str = "simulator",
    faults: str = "all",
    settings: dict[str, str] | None = None,
) -> ChaosResult:
    """The whole run, in this folder. Takes minutes.

    `faults`: of the `servers`, of arq's `queue`, or `all`. `settings` are added to those of the installation.
    """
    outside = BACKENDS[backend](data_dir)
    deliveries = DeliveryLog()
    await outside.start()
    await deliveries.start()
    installation = Installation(data_dir, SETTINGS | outside.settings | (settings or {}))
    try:
        await asyncio.to_thread(installation.start_servers)
        installation.start_api()
        for name in CALLS_WORKERS + OTHER_WORKERS:
            installation.start_worker(name, name.partition("-")[0])
        db = Database(installation.database_url, pool_size=3)
        async with db.transaction() as session:
            user = await accounts.create_user(session, "chaos@example.com", PASSWORD)
            await call_rules.change(session, None, {"destinations": "+91"}, ZoneInfo("UTC"))  # the lab's numbers
            deliveries.trust(await callbacks.list_valid_secrets(session, user.id))
        await asyncio.to_thread(
            add_second, installation, outside.second, at_once=outside.second_at_once, user="chaos@example.com"
        )
        await asyncio.to_thread(installation.wait_until_ready)
        report = await Chaos(installation, outside, deliveries, db, calls, kills, faults).run()
        await db.dispose()
        return report
    finally:
        await asyncio.to_thread(installation.stop)
        await outside.stop()
        await deliveries.stop()


def main() -> None:
    """Prints the figures. Exits with 1 if a call was lost, doubled or endless."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=BACKENDS, default="simulator", help="the telephony system")
    parser.add_argument("--faults", choices=["all", "servers", "queue"], default="all", help="what breaks")
    parser.add_argument("--calls", type=int, default=500, help="at least; more until everything has been broken")
    parser.add_argument("--kills", type=int, default=20, help="workers to kill, each in the middle of a task")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="for the same choices again")
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}; this takes several minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="ringback-chaos-", ignore_cleanup_errors=True) as folder:
        report = asyncio.run(
            run_chaos(
                Path(folder), calls=options.calls, kills=options.kills, backend=options.against, faults=options.faults
            )
        )
        print(report)
        if report.violations:
            sys.exit("FAILED")
        if report.kills < options.kills or len(report.faults) < report.planned:
            sys.exit("FAILED: too little was broken to prove anything")
        if report.most_at_second < report.limit_of_second:
            sys.exit("FAILED: the second provider's limit of calls at once was never reached, so it was not tried")


if __name__ == "__main__":
    main()
