"""How soon a callback arrives while thousands wait for a silent receiver. The end of `make bench`, or `python -m
bench.receivers` alone."""

import argparse
import asyncio
import logging
import os
import secrets
import socket
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import text

from app import accounts, calls
from app.call_rules import RulesReader
from app.db import Database
from app.hints import Hints, arq_pool
from app.models import User
from app.new_calls import CallCreator, NewCall
from app.numbers import PhoneNumber
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus
from app.telephony.simulator import Simulator
from bench.installation import Installation, processes

_WAITING = """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at, callback_url)
    SELECT 'call_' || lpad(n::text, 16, '0'), :user, '919999999999', '918888888888', 'busy', now(), :url
    FROM generate_series(1, :waiting) n;
INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body)
    SELECT 'msg_' || id, user_id, id, 'call.not_answered', 0, callback_url, '{"data": {}}' FROM calls;
INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'deliver', 'callbacks', id, user_id, 'deliver' FROM calls;
"""


def _creator(db: Database, hints: Hints) -> CallCreator:
    settings = Settings.model_construct(secret_key=SecretStr(secrets.token_hex(32)))
    directory = ProviderDirectory(db, settings, environment=Simulator(Path("nowhere")))  # nobody is dialed
    return CallCreator(db, hints, directory, RulesReader(db, settings), settings)


class _Bench:
    def __init__(self, installation: Installation, user: User) -> None:
        self._installation = installation
        self._user = user
        self._hints = Hints(arq_pool(installation.redis_url))
        self._db = Database(installation.database_url, pool_size=4, after_commit=self._hints.send_noted)
        self._creator = _creator(self._db, self._hints)
        self._received = asyncio.Event()

    async def receive(self, request: web.Request) -> web.Response:
        await request.read()
        self._received.set()
        return web.Response()

    async def one(self, url: str) -> float:
        """Seconds from the commit of a call's end to the callback's arrival."""
        async with self._db.transaction() as session:
            claims = await accounts.open_login(session, self._user, seconds=3600)
        order = NewCall(PhoneNumber("919999999999"), PhoneNumber("918888888888"), callback_url=url)
        call_id = (await self._creator.create(claims, order)).id
        self._received.clear()
        canceled = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC))
        async with self._db.transaction() as session:
            await calls.apply_events(session, call_id, [canceled], max_call_seconds=60)
        committed = time.perf_counter()
        await self._received.wait()
        return time.perf_counter() - committed

    async def row(self, name: str, url: str, times: int) -> None:
        pid = self._installation.processes["callbacks"].pid
        before, began = _cpu(pid), time.perf_counter()
        taken = []
        for _ in range(times):
            taken.append(await self.one(url) * 1000)
            await asyncio.sleep(0.5)
        core = (_cpu(pid) - before) / (time.perf_counter() - began)
        taken.sort()
        print(f"| {name} | {statistics.median(taken):.0f} | {taken[-1]:.0f} | {core:.0%} |", flush=True)

    async def fill(self, url: str, waiting: int) -> None:
        """Add callbacks whose receiver does not respond, and wait until the worker has noticed."""
        of_it = {"user": self._user.id, "url": url, "waiting": waiting}
        async with self._db.transaction() as session:
            await session.execute(text("DELETE FROM tasks"))
            await session.execute(text("DELETE FROM calls"))
            for statement in _WAITING.strip().removesuffix(";").split(";"):
                wanted = {name: value for name, value in of_it.items() if f":{name}" in statement}
                await session.execute(text(statement), wanted)
        overdue = text("SELECT count(*) FROM tasks WHERE due_at <= now()")
        async with self._db.statement() as connection:
            while (await connection.execute(overdue)).scalar_one() > waiting / 100:
                await asyncio.sleep(1)

    async def aclose(self) -> None:
        await self._hints.aclose()
        await self._db.dispose()


def _cpu(pid: int) -> float:
    return next(seconds for process, _, seconds in processes() if process == pid)


async def measure(installation: Installation, *, waiting: int, times: int) -> None:
    """Prints Markdown."""
    db = Database(installation.database_url, pool_size=1)
    async with db.transaction() as session:
        user = await accounts.create_user(session, "bench@example.com", "a benchmark's password")
    await db.dispose()
    bench = _Bench(installation, user)
    app = web.Application()
    app.router.add_post("/hook", bench.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as healthy, socket.create_server(("127.0.0.1", 0)) as silent:
        await web.SockSite(runner, healthy).start()
        url, nobody = (f"http://127.0.0.1:{listening.getsockname()[1]}/hook" for listening in (healthy, silent))
        print(f"\n### A callback beside {waiting:,} that wait for a silent receiver, one worker\n")
        print("| | median ms | most ms | of one core |\n|---|---|---|---|")
        await bench.one(url)  # the worker has started
        await bench.row("nothing waits", url, times)
        await bench.fill(nobody, waiting)
        await bench.row(f"{waiting:,} wait", url, times)
        await runner.cleanup()
    await bench.aclose()


def run(waiting: int, times: int = 40) -> None:
    """Run in an installation of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        installation = Installation(Path(folder), {"RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8"})
        try:
            installation.start_servers()
            installation.start_worker("callbacks", "callbacks")
            asyncio.run(measure(installation, waiting=waiting, times=times))
        finally:
            installation.stop()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    run(options.waiting)


if __name__ == "__main__":
    main()
