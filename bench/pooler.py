"""What a request costs behind PgBouncer, beside one without it: `python -m bench.pooler`. It is the CPU of the API,
PostgreSQL and PgBouncer together. Takes two minutes."""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import httpx

from app import accounts
from app.db import Database
from bench.installation import Installation, free_port, processes
from lab.pgbouncer import PgBouncer

_EMAIL, _PASSWORD = "pooler@example.com", "a pooled password"
_ORDER = {"customer_number": "919999999999", "agent_number": "918888888888"}
_CLIENTS = 8
_POOL_SIZE = 20


async def measure(address: str, kind: str, requests: int, token: str, call_id: str, roots: set[int]) -> float:
    """CPU milliseconds per request, of these processes and their children."""
    before = _cpu_seconds(roots)
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:

        async def ask() -> None:
            for _ in range(requests // _CLIENTS):
                if kind == "poll":
                    answer = await client.get(f"/api/developer/calls/{call_id}/transcript")
                else:
                    answer = await client.post("/api/developer/calls/click2call", json=_ORDER)
                assert answer.status_code == 200, answer.text

        await asyncio.gather(*(ask() for _ in range(_CLIENTS)))
    return (_cpu_seconds(roots) - before) * 1000 / (requests // _CLIENTS * _CLIENTS)


def _cpu_seconds(roots: set[int]) -> float:
    return sum(cpu for pid, parent, cpu in processes() if pid in roots or parent in roots)


async def run(folder: Path, rounds: int, requests: int) -> None:
    installation = Installation(folder)
    await asyncio.to_thread(installation.start_servers)
    pgbouncer = PgBouncer(folder / "pgbouncer", installation.database_url, pool_size=_POOL_SIZE)
    await asyncio.to_thread(pgbouncer.start)
    port = free_port()
    try:
        db = Database(installation.database_url, pool_size=1)
        async with db.transaction() as session:
            await accounts.create_user(session, _EMAIL, _PASSWORD)
        await db.dispose()
        servers = {(folder / "postgres/postmaster.pid").read_text().split()[0], str(pgbouncer.pid)}
        installation.start_api()
        pooled = {"RINGBACK_DATABASE_URL": pgbouncer.url, "RINGBACK_DATABASE_POOLER": "transaction"}
        installation.environment |= pooled
        installation.start("pooled", "app.cli", "serve", port=port)
        addresses = {"api": installation.base_url, "pooled": f"http://127.0.0.1:{port}"}
        await asyncio.to_thread(installation.wait_until_ready, "/healthz")
        await asyncio.to_thread(installation.wait_until_ready, "/healthz", port=port)
        async with httpx.AsyncClient(base_url=addresses["api"]) as client:
            login = {"email": _EMAIL, "password": _PASSWORD}
            answer = await client.post("/api/developer/login", json=login)
            token = answer.json()["data"]["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            answer = await client.post("/api/developer/calls/click2call", json=_ORDER)
            call_id = answer.json()["data"]["call_id"]
        for kind in ("poll", "create"):
            found: dict[str, list[float]] = {name: [] for name in addresses}
            for number in range(rounds + 1):
                for name in sorted(addresses, reverse=number % 2 == 1):
                    roots = {installation.processes[name].pid, *map(int, servers)}
                    cost = await measure(addresses[name], kind, requests, token, call_id, roots)
                    if number:  # the first round opens the connections
                        found[name].append(cost)
            ratios = [behind / direct for behind, direct in zip(found["pooled"], found["api"], strict=True)]
            print(
                f"{kind:<6} direct {statistics.median(found['api']):.2f} ms CPU, behind PgBouncer "
                f"{statistics.median(found['pooled']):.2f} ms, ratio {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}–{max(ratios):.2f})"
            )
    finally:
        pgbouncer.stop()
        await asyncio.to_thread(installation.stop)


def main() -> None:
    """Prints two lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=800, help="in each round, of each sort")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringback-pooler-", ignore_cleanup_errors=True) as folder:
        asyncio.run(run(Path(folder), options.rounds, options.requests))


if __name__ == "__main__":
    main()
