"""Hints: messages in Valkey that a task is due, in the form of arq's jobs, or that a call has changed. Losing one costs
seconds, never a task."""

import asyncio
import json
from collections.abc import Iterable
from time import time
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import ReadOnlyError, RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from app import changes, metrics
from app.engine_models import Queue
from app.tasks import AddedTask

log = structlog.get_logger()

JOB = "run_task"
"""The only arq function. Its arguments are a task's id and its lane."""

LEAVES_REPLICA = [ReadOnlyError]
"""For `retry_on_error` of a pool. After a failover, a connection may lead to a Valkey that is a replica now. It is
closed, and the request repeated, because the primary is elsewhere at the same address."""

_JOB_LIFE_MS = 3600 * 1000  # how long a job stays in Valkey after it was due; later, the sweep finds its task


def arq_pool(redis_url: str) -> ArqRedis:
    """A client of Valkey for arq. The timeouts keep a frozen Valkey from freezing us. Jobs are JSON, because with
    pickle, arq's default, anybody who can write to Valkey could run code here."""
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=32,
        timeout=5,
        socket_timeout=5,
        socket_connect_timeout=2,
        retry_on_error=LEAVES_REPLICA,
    )
    return ArqRedis(pool, job_serializer=to_json, job_deserializer=json.loads)


def arq_queue(queue: Queue) -> str:
    """The queue's key in Valkey."""
    return f"ringback:{queue}"


def to_json(job: dict[str, Any]) -> bytes:
    """arq's serializer."""
    return json.dumps(job, default=repr).encode()


class Hints:
    """Sends hints to arq in the background. No request waits for Valkey or fails because of it.

    Hints that come while a batch is on its way leave together in the next one. This writes what arq's `enqueue_job`
    writes, in one round trip instead of three per job. That saved a fifth of the cost of a create.
    """

    _MOST_WAITING = 1000  # with more, Valkey is down or frozen, and the sweep finds the tasks

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._waiting: list[AddedTask] = []
        self._changed: set[str] = set()
        self._is_closed = False
        self._sending: asyncio.Task[None] | None = None

    def send(self, task: AddedTask, *, changed: Iterable[str] = ()) -> None:
        """Send the hint of a task, and that these calls have changed. Returns at once. A task's attempt has one job id,
        so two hints run it once."""
        if len(self._waiting) < self._MOST_WAITING:
            self._waiting.append(task)
        self._tell(changed)

    def send_noted(self, session: AsyncSession) -> None:
        """Send the hints of all tasks that a committed session added, and tell what it changed. For
        `Database(after_commit=…)`."""
        for task in session.info.pop("added_tasks", ()):
            self.send(task)
        if changed := changes.take(session):
            self._tell(changed)

    def _tell(self, changed: Iterable[str]) -> None:
        if len(self._changed) < self._MOST_WAITING:
            self._changed.update(changed)
        if self._is_closed:  # a connection that is opened now would stay open
            return
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._waiting or self._changed:
            batch, self._waiting = self._waiting, []
            changed, self._changed = self._changed, set()
            now = int(time() * 1000)
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for task in batch:  # the job must exist before its id is in the queue
                        job_id = f"task:{task.id}:{task.attempts}"
                        job = serialize_job(JOB, (task.id, task.lane), {}, None, now, serializer=to_json)
                        due = now + int(task.delay * 1000)
                        pipe.set(job_key_prefix + job_id, job, px=due - now + _JOB_LIFE_MS)
                        pipe.zadd(arq_queue(task.queue), {job_id: due}, lt=True)  # never later than before
                    if changed:
                        pipe.publish(changes.CHANNEL, " ".join(changed))
                    await pipe.execute()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("hints_lost", tasks=len(batch), error=repr(error))
                metrics.hints_lost(len(batch))

    async def aclose(self) -> None:
        """Let waiting hints go out, then close the client. Later ones are lost."""
        self._is_closed = True
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=2)
        await self._redis.aclose(close_connection_pool=True)
