"""Faults of arq and its queue, while everything else works, and how soon calls are dialed meanwhile.

    refused    Valkey refuses the first command of arq's loop over its queue, and accepts everything else
    poisoned   foreign entries are written into the queue all the time, and foreign values under arq's own keys
    stale      the queue begins with hundreds of jobs that are marked as in progress and never end
    gone       Valkey is killed, and stays away

Each lasts some seconds in which calls are posted. A calls worker is killed -9 at the beginning.
"""

import asyncio
import json
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from app.db import Database
from app.engine_models import Queue
from app.hints import arq_queue
from bench.installation import Installation
from bench.telephony_backends import InjectedFault

LONGEST_SECONDS = 20.0
"""A call that waits longer for its dial is a violation. This allows for the lease of a killed worker on a slow
machine."""

_LASTS_SECONDS = 8.0
_QUEUES = [arq_queue(queue) for queue in Queue]
_DIALLED = text(
    "SELECT extract(epoch FROM coalesce(dialed_at, now()) - created_at)::float, dialed_at IS NULL FROM calls "
    "WHERE created_at BETWEEN :since AND :until AND (provider = 'environment') = :unlimited"
)


class QueueFaults:
    """Breaks arq in four ways, and measures what that does to calls."""

    def __init__(self, installation: Installation, db: Database, kill_worker: Callable[[], Awaitable[None]]) -> None:
        self._installation = installation
        self._db = db
        self._kill_worker = kill_worker
        self.figures: list[str] = []
        self.violations: list[str] = []
        self.faults: list[InjectedFault] = [
            ("arq refused", self._refuse),
            ("arq's queue poisoned", self._poisoned),
            ("arq's queue full of stale keys", self._stale),
            ("Valkey gone", self._gone),
        ]

    async def _refuse(self) -> None:
        async with self._measured("arq refused"), self._client() as redis:
            await redis.acl_setuser("default", enabled=True, commands=["-zrangebyscore"])
            await asyncio.sleep(_LASTS_SECONDS)
            await redis.acl_setuser("default", enabled=True, commands=["+zrangebyscore"])

    async def _poisoned(self) -> None:
        async with self._measured("poisoned"), self._client() as redis:
            for number in range(int(_LASTS_SECONDS / 0.2)):
                await self._poison(redis, number)
                await asyncio.sleep(0.2)

    async def _poison(self, redis: Redis, number: int) -> None:
        job: dict[str, object] = {"t": None, "f": "run_task", "a": [1], "k": {}, "et": 0}
        bad: list[dict[str, object]] = [
            {"et": None},
            {"et": "now"},
            {"et": 1e300},
            {"f": ["run_task"]},
            {"f": "nobody's"},
            {"a": 7},
            {"t": "x"},
        ]
        for queue in _QUEUES:
            with suppress(RedisError):  # the queue is a string at the moment
                await redis.zadd(queue, {b"\xff\xfe%d" % number: 1, b"missing:%d" % number: 1})
                for kind, changed in enumerate(bad):
                    job_id = f"bad:{number}:{kind}"
                    await redis.set(f"arq:job:{job_id}", json.dumps(job | changed))
                    await redis.zadd(queue, {job_id: 1})
            if number % 10 == 5:
                await redis.set(queue, "a text")
        await redis.set("arq:abort", "a text")

    async def _stale(self) -> None:
        async with self._measured("stale keys"), self._client() as redis:
            for turn in range(int(_LASTS_SECONDS)):
                async with redis.pipeline(transaction=False) as pipe:
                    for number in range(600):
                        job_id = f"stale:{turn}:{number}"
                        pipe.psetex(f"arq:in-progress:{job_id}", 6 * 3600 * 1000, b"1")
                        for queue in _QUEUES:
                            pipe.zadd(queue, {job_id: number + 1})
                    await pipe.execute()
                await asyncio.sleep(1)

    async def _gone(self) -> None:
        async with self._measured("Valkey gone"):
            await asyncio.to_thread(self._installation.valkey.kill)
            await asyncio.sleep(_LASTS_SECONDS)
        await asyncio.to_thread(self._installation.start_valkey)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        redis: Redis = Redis.from_url(self._installation.redis_url)
        try:
            yield redis
        finally:
            await redis.aclose()

    @asynccontextmanager
    async def _measured(self, name: str) -> AsyncIterator[None]:
        """How long the calls that are posted in the block wait for their dial attempt."""
        since = await self._now()
        await self._kill_worker()
        yield
        until = await self._now()
        for _ in range(int(LONGEST_SECONDS)):
            async with self._db.statement() as connection:
                values = {"since": since, "until": until, "unlimited": True}
                waited = (await connection.execute(_DIALLED, values)).all()
                # These may wait for a call to end. They only show that something was posted.
                others = (await connection.execute(_DIALLED, values | {"unlimited": False})).all()
            if not any(waits for _, waits in waited):
                break
            await asyncio.sleep(1)
        seconds = sorted(seconds for seconds, _ in waited) or [0.0 if others else LONGEST_SECONDS + 1]
        self.figures.append(
            f"dialed while {name:<12} {len(waited)} calls, after {statistics.median(seconds):.1f} s (median), "
            f"{seconds[-1]:.1f} s at most"
        )
        if seconds[-1] > LONGEST_SECONDS:
            self.violations.append(f"with {name} a call was dialed only after {seconds[-1]:.0f} s, or none was posted")

    async def _now(self) -> datetime:
        async with self._db.statement() as connection:
            now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
        return now
