"""How long one user's single call waits behind another user's 2,000. Run it as `python -m bench.fairness`.

The calls are ordered over HTTP, on the simulator, with one worker of each kind. The single call is ordered once all
others are queued. Callbacks and transcripts are tasks that are added to the database, with their hints. Their receiver
and their speech endpoint answer at once.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from aiohttp import web
from sqlalchemy import text

from app import accounts
from app.db import Database
from app.engine_models import Queue
from app.hints import Hints, arq_pool
from app.tasks import AddedTask
from app.telephony.simulator import CONVERSATIONS
from bench.installation import Installation

PASSWORD = "a benchmark's password"
ORDER = {"customer_number": "15005550001", "agent_number": "918888888888"}
_GATES = {
    "no limit": ("--pace", "0", "--calls-at-once", "0"),
    "5 calls a second": ("--pace", "5/second", "--calls-at-once", "0"),
    "20 calls at once": ("--pace", "0", "--calls-at-once", "20"),
}

_QUEUES = {"deliver": Queue.CALLBACKS, "transcribe": Queue.TRANSCRIPTS}

_TASKS = {
    "deliver": """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at, callback_url)
    SELECT 'call_' || :letter || lpad(n::text, 15, '0'), :user, '919999999999', '918888888888', 'busy', now(), :url
    FROM generate_series(1, :count) n;
INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body)
    SELECT 'msg_' || id, user_id, id, 'call.not_answered', 0, callback_url, '{"data": {}}'
    FROM calls WHERE id LIKE 'call_' || :letter || '%';
INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'deliver', 'callbacks', id, user_id, 'deliver' FROM calls WHERE id LIKE 'call_' || :letter || '%'
    RETURNING id
""",
    "transcribe": """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at)
    SELECT 'call_' || :letter || lpad(n::text, 15, '0'), :user, '919999999999', '918888888888', 'completed', now()
    FROM generate_series(1, :count) n;
INSERT INTO recordings (call_id, storage_key, content_type, size_bytes, sha256)
    SELECT id, 'silence.wav', 'audio/wav', 1, '' FROM calls WHERE id LIKE 'call_' || :letter || '%';
INSERT INTO transcripts (id, call_id, user_id, status)
    SELECT id, id, user_id, 'pending' FROM calls WHERE id LIKE 'call_' || :letter || '%';
INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'transcribe', 'transcripts', id, user_id, 'transcribe' FROM calls WHERE id LIKE 'call_' || :letter || '%'
    RETURNING id
""",
}
# How many of a user's tasks have been done
_DONE = {
    "deliver": "SELECT count(*) FROM deliveries WHERE user_id = :id AND status = 'delivered'",
    "transcribe": "SELECT count(*) FROM transcripts WHERE user_id = :id AND status = 'ready'",
}


class _Bench:
    def __init__(self, installation: Installation, outside: str, count: int, times: int) -> None:
        """`outside` is the address of a receiver of callbacks that is also a speech endpoint."""
        self._installation = installation
        self._outside = outside
        self._hints = Hints(arq_pool(installation.redis_url))
        self._count = count
        self._times = times
        self._db = Database(installation.database_url, pool_size=2)

    async def run(self) -> None:
        async with self._db.transaction() as session:
            self._busy = (await accounts.create_user(session, "busy@example.com", PASSWORD)).id
            self._other = (await accounts.create_user(session, "other@example.com", PASSWORD)).id
        print(f"\n### One user's single call behind another user's {self._count:,}\n")
        print("| | median s until it is dialed | most s | the others dialed by then |\n|---|---|---|---|", flush=True)
        for name, options in _GATES.items():
            await asyncio.to_thread(self._installation.run, "providers", "set", "environment", *options)
            await asyncio.sleep(1.5)  # each process reads the providers once a second
            await self._row(name)
        print(f"\n| | median s until it is done | most s | of the others' {self._count:,}, done by then |", flush=True)
        print("|---|---|---|---|", flush=True)
        for name, kind in (("a callback", "deliver"), ("a transcript", "transcribe")):
            await self._row_of_tasks(name, kind)
        await self._hints.aclose()
        await self._db.dispose()

    async def _row(self, name: str) -> None:
        taken: list[float] = []
        async with httpx.AsyncClient(base_url=self._installation.base_url, timeout=60) as client:
            busy, other = [await self._login(client, user) for user in ("busy", "other")]
            await self._order(client, busy, self._count)
            for _ in range(self._times):
                began = time.perf_counter()
                (call_id,) = await self._order(client, other, 1)
                while not await self._scalar("SELECT dialed_at FROM calls WHERE id = :id", id=call_id):
                    await asyncio.sleep(0.02)
                taken.append(time.perf_counter() - began)
                dialed = await self._scalar(
                    "SELECT count(*) FROM calls WHERE user_id = :id AND dialed_at IS NOT NULL", id=self._busy
                )
        await self._execute("TRUNCATE calls CASCADE")
        print(f"| {name} | {statistics.median(taken):.2f} | {max(taken):.2f} | {dialed} |", flush=True)

    async def _row_of_tasks(self, name: str, kind: str) -> None:
        taken: list[float] = []
        done: list[int] = []
        for _ in range(self._times):
            await self._add_tasks(kind, self._busy, "b", self._count)
            await asyncio.sleep(0.5)
            began = time.perf_counter()
            await self._add_tasks(kind, self._other, "o", 1)
            while not await self._scalar(_DONE[kind], id=self._other):
                await asyncio.sleep(0.02)
            taken.append(time.perf_counter() - began)
            done.append(int(str(await self._scalar(_DONE[kind], id=self._busy))))
            await self._execute("TRUNCATE calls CASCADE")
        if max(done) == self._count:
            sys.exit(f"{name}: all others were done before, so nothing was measured. Take more --calls")
        print(f"| {name} | {statistics.median(taken):.2f} | {max(taken):.2f} | {min(done)}–{max(done)} |", flush=True)

    async def _add_tasks(self, kind: str, user_id: str, letter: str, count: int) -> None:
        """Add tasks and their hints, as their callers do."""
        values = {"user": user_id, "letter": letter, "count": count, "url": f"{self._outside}/hook"}
        async with self._db.transaction() as session:
            for statement in _TASKS[kind].strip().split(";"):
                wanted = {name: value for name, value in values.items() if f":{name}" in statement}
                added = await session.execute(text(statement), wanted)
            ids = added.scalars().all()
        for task_id in ids:
            self._hints.send(AddedTask(task_id, _QUEUES[kind], kind))
            if task_id % 500 == 0:
                await asyncio.sleep(0.01)  # a batch goes out; more than 1,000 at once would be dropped

    async def _login(self, client: httpx.AsyncClient, user: str) -> dict[str, str]:
        body = {"email": f"{user}@example.com", "password": PASSWORD}
        answer = await client.post("/api/developer/login", json=body)
        return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}

    async def _order(self, client: httpx.AsyncClient, headers: dict[str, str], count: int) -> list[str]:
        limit = asyncio.Semaphore(20)

        async def one() -> str:
            async with limit:
                answer = await client.post("/api/developer/calls/click2call", json=ORDER, headers=headers)
                return str(answer.json()["data"]["call_id"])

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def _scalar(self, statement: str, **values: object) -> object:
        async with self._db.statement() as connection:
            return (await connection.execute(text(statement), values)).scalar()

    async def _execute(self, *statements: str) -> None:
        async with self._db.transaction() as session:
            for statement in statements:
                await session.execute(text(statement))


async def _hello(request: web.Request) -> web.Response:
    """Takes a callback, and recognizes one word in every recording."""
    await request.read()
    return web.json_response({"text": "Hello", "words": [{"word": "Hello", "start": 0.0, "end": 0.4}]})


async def _run(folder: Path, count: int, times: int) -> None:
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/{path:.*}", _hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    outside = f"http://{host}:{port}"
    settings = {
        "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "RINGBACK_SIMULATOR_SPEED": "0.2",
        "RINGBACK_RECOGNIZER": "openai",
        "RINGBACK_SPEECH_URL": f"{outside}/v1",
    }
    (folder / "recordings").mkdir(exist_ok=True)
    shutil.copy(CONVERSATIONS / "silence.wav", folder / "recordings")
    installation = Installation(folder, settings)
    try:
        await asyncio.to_thread(installation.start_servers)
        installation.start_api()
        for queue in ("calls", "callbacks", "transcripts"):
            installation.start_worker(queue, queue)
        await asyncio.to_thread(installation.wait_until_ready)
        await _Bench(installation, outside, count, times).run()
    finally:
        await asyncio.to_thread(installation.stop)
        await runner.cleanup()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="of the busy user")
    parser.add_argument("--times", type=int, default=5, help="single calls for each row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_run(Path(folder), options.calls, options.times))


if __name__ == "__main__":
    main()
