"""How long one user's single call waits behind another user's 2,000. Run it as `python -m bench.fairness`.

The calls are ordered over HTTP, on the simulator, with one worker of each kind. The single call is ordered once all
others are queued. Transcripts and callbacks are tasks that were added to the database.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import text

from app import accounts
from app.db import Database
from bench.installation import Installation

PASSWORD = "a benchmark's password"
ORDER = {"customer_number": "15005550001", "agent_number": "918888888888"}
_GATES = {
    "no limit": ("--pace", "0", "--calls-at-once", "0"),
    "5 calls a second": ("--pace", "5/second", "--calls-at-once", "0"),
    "20 calls at once": ("--pace", "0", "--calls-at-once", "20"),
}

# Nobody listens at this port, so each callback is tried at once and fails.
_CALLBACKS = """
INSERT INTO calls (id, user_id, customer_number, agent_number, status, ended_at, callback_url)
    SELECT 'call_' || :letter || lpad(n::text, 15, '0'), :user, '919999999999', '918888888888', 'busy', now(),
           'http://127.0.0.1:1/'
    FROM generate_series(1, :count) n;
INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body)
    SELECT 'msg_' || id, user_id, id, 'call.not_answered', 0, callback_url, '{"data": {}}'
    FROM calls WHERE id LIKE 'call_' || :letter || '%';
INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'deliver', 'callbacks', id, user_id, 'deliver' FROM calls WHERE id LIKE 'call_' || :letter || '%';
"""


class _Bench:
    def __init__(self, installation: Installation, count: int, times: int) -> None:
        self._installation = installation
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
        print("\n| | median s until it is tried | most s |\n|---|---|---|", flush=True)
        await self._callbacks()
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

    async def _callbacks(self) -> None:
        taken: list[float] = []
        for _ in range(self._times):
            await self._add_callbacks(self._busy, "b", self._count)
            await asyncio.sleep(0.5)
            began = time.perf_counter()
            await self._add_callbacks(self._other, "o", 1)
            while not await self._scalar("SELECT max(attempts) FROM deliveries WHERE user_id = :id", id=self._other):
                await asyncio.sleep(0.02)
            taken.append(time.perf_counter() - began)
            await self._execute("TRUNCATE calls CASCADE")
        print(f"| callbacks | {statistics.median(taken):.2f} | {max(taken):.2f} |", flush=True)

    async def _add_callbacks(self, user_id: str, letter: str, count: int) -> None:
        async with self._db.transaction() as session:
            for statement in _CALLBACKS.strip().removesuffix(";").split(";"):
                values = {"user": user_id, "letter": letter, "count": count}
                wanted = {name: value for name, value in values.items() if f":{name}" in statement}
                await session.execute(text(statement), wanted)

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


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="of the busy user")
    parser.add_argument("--times", type=int, default=5, help="single calls for each row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringback-bench-", ignore_cleanup_errors=True) as folder:
        settings = {"RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8", "RINGBACK_SIMULATOR_SPEED": "0.2"}
        installation = Installation(Path(folder), settings)
        try:
            installation.start_servers()
            installation.start_api()
            for queue in ("calls", "callbacks", "transcripts"):
                installation.start_worker(queue, queue)
            installation.wait_until_ready()
            asyncio.run(_Bench(installation, options.calls, options.times).run())
        finally:
            installation.stop()


if __name__ == "__main__":
    main()
