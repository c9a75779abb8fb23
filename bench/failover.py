"""A primary fails under load, and its replica takes over at the same address. Run it as `python -m bench.failover`.

    killed      PostgreSQL's primary is killed -9, with all its processes
    frozen      it keeps its connections and answers nothing, as a host that vanished
    demoted     the address moves to a server that is still a replica and refuses to write, and is promoted later
    valkey      Valkey's primary is killed -9

Clients order and poll calls all the time. At the end each call must be there, dialed once, with its callbacks. The
replica is synchronous. `--asynchronous SECONDS` shows what an asynchronous one loses if it is so far behind.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import text

from app.db import Database
from bench.installation import Installation
from bench.load_run import BUSY, SETTINGS, load_run
from lab.replicas import MovingAddress, ReplicaPostgres, ReplicaValkey

FAULTS = ("killed", "frozen", "demoted", "valkey")
QUEUES = ("calls", "callbacks", "transcripts")
_CUSTOMERS = (*[BUSY] * 3, "15005550005")  # silence costs no recognition
_PROMOTION_SECONDS = 2.0
"""What a failover manager takes to notice, at least."""


@dataclass
class FailoverResult:
    """The result of a run. `violations` is empty if no call was lost or doubled."""

    faults: tuple[str, ...]
    accepted: int = 0
    outage_seconds: float = 0.0
    """The longest time without an accepted order."""
    refused: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{' and '.join(self.faults):<8} {self.accepted} orders accepted, no order for "
            f"{self.outage_seconds:.1f} s at most, {self.refused} requests refused meanwhile; ended: {self.statuses}; "
            f"lost or doubled: {len(self.violations)}",
            *[f"    {violation}" for violation in self.violations],
        ]
        return "\n".join(lines)


async def run_failover(
    data_dir: Path, *faults: str, orders: int = 20, orders_per_second: float = 5.0, lag: float | None = None
) -> FailoverResult:
    """`faults` come one after another, at most one of them PostgreSQL's. `orders` are accepted before each, and after
    the last. `lag`: PostgreSQL's replica is asynchronous, and this many seconds behind."""
    installation = Installation(data_dir, SETTINGS)
    primary, replica = ReplicaPostgres(data_dir), ReplicaPostgres(data_dir / "replica")
    valkey, other_valkey = ReplicaValkey(data_dir), ReplicaValkey(data_dir / "replica")
    installation.postgres, installation.valkey = primary, valkey
    addresses = MovingAddress(), MovingAddress()
    result = FailoverResult(faults)
    try:
        await asyncio.to_thread(installation.start_servers)
        await asyncio.to_thread(replica.follow, primary)
        if lag is None:
            await _make_synchronous(installation.database_url)
        await asyncio.to_thread(other_valkey.follow, valkey)
        await addresses[0].start(primary.socket)
        await addresses[1].start(valkey.address)
        password = str(urlsplit(valkey.url).password)
        installation.database_url = f"postgresql+asyncpg://ringback@127.0.0.1:{addresses[0].port}/postgres"
        installation.environment |= {
            "RINGBACK_DATABASE_URL": installation.database_url,
            "RINGBACK_REDIS_URL": f"redis://:{password}@127.0.0.1:{addresses[1].port}/0",
        }
        installation.start_api()
        for queue in QUEUES:
            installation.start_worker(queue, queue)
        await asyncio.to_thread(installation.wait_until_ready)
        async with load_run(
            installation, [installation.base_url], orders_per_second=orders_per_second, customers=_CUSTOMERS
        ) as run:
            await run.load.accept(orders)
            began = time.monotonic()
            for fault in faults:
                if fault == "valkey":
                    await asyncio.to_thread(valkey.kill)
                    await asyncio.sleep(_PROMOTION_SECONDS)
                    await asyncio.to_thread(other_valkey.promote)
                    addresses[1].move(other_valkey.address)
                    installation.valkey = other_valkey
                else:
                    if lag is not None:
                        await _stop_replication(replica)
                        await asyncio.sleep(lag)
                        began = time.monotonic()
                    await _fail_over(fault, primary, replica, addresses[0])
                    installation.postgres = replica
                await run.load.accept(orders)
            result.violations = await run.judge()
            result.accepted, result.refused, result.statuses = len(run.load.accepted), run.load.refused, run.statuses
            await asyncio.to_thread(primary.kill)  # a frozen one would delay closing our own connections
            result.outage_seconds = run.load.longest_gap(began)
        return result
    finally:
        for process in installation.processes.values():
            process.kill()
            process.wait()
        for server in (primary, replica):
            server.kill()
        for cache in (valkey, other_valkey):
            await asyncio.to_thread(cache.kill)
        for address in addresses:
            await address.stop()


async def _fail_over(fault: str, primary: ReplicaPostgres, replica: ReplicaPostgres, address: MovingAddress) -> None:
    if fault == "frozen":
        await asyncio.to_thread(primary.freeze)
    else:
        await asyncio.to_thread(primary.kill)
    if fault == "demoted":
        address.move(replica.socket)
    await asyncio.sleep(_PROMOTION_SECONDS)
    await asyncio.to_thread(replica.promote)
    address.move(replica.socket)


async def _stop_replication(replica: ReplicaPostgres) -> None:
    """From now on the replica falls behind."""
    db = Database(f"postgresql+asyncpg://ringback@/postgres?host={Path(replica.socket).parent}", pool_size=1)
    async with db.statement() as connection:
        await connection.execute(text("ALTER SYSTEM SET primary_conninfo = ''"))
        await connection.execute(text("SELECT pg_reload_conf()"))
        receiving = text("SELECT count(*) FROM pg_stat_wal_receiver")
        while (await connection.execute(receiving)).scalar_one():
            await asyncio.sleep(0.05)
    await db.dispose()


async def _make_synchronous(database_url: str) -> None:
    """From now on a commit is acknowledged when the replica has it on its disk."""
    db = Database(database_url, pool_size=1)
    async with db.statement() as connection:
        await connection.execute(text("ALTER SYSTEM SET synchronous_standby_names = '*'"))
        await connection.execute(text("SELECT pg_reload_conf()"))
        synchronous = text("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
        while not (await connection.execute(synchronous)).scalar_one():
            await asyncio.sleep(0.05)
    await db.dispose()


def main() -> None:
    """Prints a line for each fault. Exits with 1 if a call was lost or doubled, with a synchronous replica."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", default=FAULTS, help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--orders", type=int, default=50, help="before the fault, and after it")
    parser.add_argument("--asynchronous", type=float, metavar="SECONDS", help="how far the replica is behind")
    options = parser.parse_args()
    failed = False
    for fault in options.faults:
        with tempfile.TemporaryDirectory(prefix="ringback-failover-", ignore_cleanup_errors=True) as folder:
            random.seed(0)
            result = asyncio.run(run_failover(Path(folder), fault, orders=options.orders, lag=options.asynchronous))
        print(result, flush=True)
        failed |= bool(result.violations)
    if failed and options.asynchronous is None:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()
