"""Work that is owed, as rows. PostgreSQL is the truth; arq and Valkey only wake a worker sooner.

A task exists if and only if the change that caused it was committed. Its life:

    add      in the transaction of the change; after the commit a *hint* tells arq
    claim    by one worker, for a lease that it renews while it works
    finish   deletes the row, in the transaction of the task's own result; refused if the lease was lost
    retry    gives the row back, due later

A worker that dies, or is frozen past its lease, loses the task to another; what the first one then tries to write is
rolled back with its `finish`. A hint that is lost costs seconds: the sweep claims what is overdue without one.

Whoever adds, finishes or decides something for a call locks the call's row first (`lock_call`; `finish` does it), and
only then whatever else it needs: the user, their numbers. So what was looked at under the lock stays so until the
commit, and no two transactions wait for each other.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from time import time
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError
from sqlalchemy import ColumnElement, and_, delete, exists, func, literal, or_, select, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db import Database
from app.models import Call, Queue, Task, TaskKind

log = structlog.get_logger()

QUEUE_OF: dict[TaskKind, Queue] = {
    TaskKind.DIAL: Queue.CALLS,
    TaskKind.CONNECT: Queue.CALLS,
    TaskKind.TRACK: Queue.CALLS,
    TaskKind.HANGUP: Queue.CALLS,
    TaskKind.FETCH_RECORDING: Queue.CALLS,
    TaskKind.TRANSCRIBE: Queue.TRANSCRIPTS,
    TaskKind.DELIVER: Queue.CALLBACKS,
}

JOB = "run_task"
"""The one arq function. Its argument is a task's id."""

_JOB_LIFE_MS = 3600 * 1000  # a job that nobody took for an hour after it was due; the sweep finds its task

# A job may reach a worker some milliseconds before the database's clock says it is due; without this the task would
# wait for the sweep.
_CLOCK_SLACK = timedelta(milliseconds=50)


BACKLOG_COUNTED = 1000
"""Of a queue's backlog no more tasks are counted."""

_AGE = func.extract("epoch", func.now() - Task.created_at)


class LeaseLost(Exception):
    """Another worker has, or has done, this task. Everything in this transaction must be rolled back."""


@dataclass(frozen=True, slots=True)
class AddedTask:
    """A task that was added and still needs its hint."""

    id: int
    queue: Queue
    delay: float = 0.0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    id: int
    kind: TaskKind
    call_id: str
    attempts: int
    """How often it was claimed, this time included."""
    lease_token: UUID
    age_seconds: float = 0.0
    """How long ago it was added. A task that was postponed keeps its age."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What of one queue is due and has no worker."""

    count: int
    """At most `BACKLOG_COUNTED`."""
    oldest_seconds: float
    """For how long the oldest of them could have been taken; 0 if there is none."""
    working: bool
    """Whether some worker holds the lease of another task of this queue."""


async def lock_call(session: AsyncSession, call_id: str) -> None:
    """Be the only one who writes for this call, until the transaction ends."""
    await session.execute(select(Call.id).where(Call.id == call_id).with_for_update())


async def add(
    session: AsyncSession,
    kind: TaskKind,
    call_id: str,
    *,
    delay: float = 0.0,
    attempts: int = 0,
    age_seconds: float = 0.0,
) -> None:
    """Owe the call this work, due in `delay` seconds, if and when the session commits.

    Of most kinds a call has one task at a time; where there is one already, this does nothing.
    """
    queue = QUEUE_OF[kind]
    due_at = func.now() + timedelta(seconds=delay)
    task_id = await session.scalar(
        insert(Task)
        .values(
            kind=kind,
            queue=queue,
            call_id=call_id,
            due_at=due_at,
            attempts=attempts,
            created_at=func.now() - timedelta(seconds=age_seconds),
        )
        .on_conflict_do_nothing()
        .returning(Task.id)
    )
    if task_id is None:
        return
    hint_after_commit(session, AddedTask(task_id, queue, delay, attempts))


def hint_after_commit(session: AsyncSession, task: AddedTask) -> None:
    """Send a hint of this task once the session has committed (`Hints.send_added`)."""
    session.info.setdefault("added_tasks", []).append(task)


async def claim(db: Database, task_id: int, *, lease_seconds: float) -> ClaimedTask | None:
    """Take the task if it is due and nobody has it."""
    due = and_(Task.id == task_id, Task.due_at <= func.now() + _CLOCK_SLACK, _is_unclaimed())
    claimed = await _claim(db, due, lease_seconds)
    return claimed[0] if claimed else None


async def claim_overdue(
    db: Database, queue: Queue, *, limit: int, overdue_seconds: float, lease_seconds: float
) -> list[ClaimedTask]:
    """Take at most `limit` tasks that nobody has though they were due `overdue_seconds` ago, the oldest first.

    Workers that do this at the same time get different tasks, and none waits for another.
    """
    late = func.now() - timedelta(seconds=overdue_seconds)
    chosen = (
        select(Task.id)
        .where(Task.queue == queue, Task.due_at <= late, _is_unclaimed())
        .order_by(Task.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    return await _claim(db, Task.id.in_(select(chosen.c.id)), lease_seconds)


async def _claim(db: Database, which: ColumnElement[bool], lease_seconds: float) -> list[ClaimedTask]:
    claiming = (
        update(Task)
        .where(which)
        .values(
            lease_token=func.gen_random_uuid(),
            lease_until=func.now() + timedelta(seconds=lease_seconds),
            attempts=Task.attempts + 1,
        )
        .returning(Task.id, Task.kind, Task.call_id, Task.attempts, Task.lease_token, _AGE)
    )
    async with db.statement() as connection:
        rows = (await connection.execute(claiming)).all()
    return [
        ClaimedTask(task_id, TaskKind(kind), call_id, attempts, token, float(age))
        for task_id, kind, call_id, attempts, token, age in rows
        if token is not None
    ]


async def renew(db: Database, task: ClaimedTask, *, lease_seconds: float) -> bool:
    """Hold the lease for longer; False if it was lost."""
    renewing = (
        update(Task).where(*_lease_is_held(task)).values(lease_until=func.now() + timedelta(seconds=lease_seconds))
    )
    async with db.statement() as connection:
        return (await connection.execute(renewing)).rowcount == 1


async def finish(session: AsyncSession, task: ClaimedTask) -> None:
    """The task is done with this transaction, which has its call's lock from here on. Raises `LeaseLost` if it was no
    longer ours to do."""
    await lock_call(session, task.call_id)
    deleted = await session.scalar(delete(Task).where(*_lease_is_held(task)).returning(Task.id))
    if deleted is None:
        raise LeaseLost(f"task {task.id} was taken over")


async def retry_later(session: AsyncSession, task: ClaimedTask, *, delay: float, error: str) -> None:
    """Give the task back, due again in `delay` seconds. Raises `LeaseLost`."""
    giving_back = (
        update(Task)
        .where(*_lease_is_held(task))
        .values(lease_token=None, lease_until=None, due_at=func.now() + timedelta(seconds=delay), last_error=error)
        .returning(Task.queue)
    )
    queue = await session.scalar(giving_back)
    if queue is None:
        raise LeaseLost(f"task {task.id} was taken over")
    hint_after_commit(session, AddedTask(task.id, Queue(queue), delay, task.attempts))


async def postpone(session: AsyncSession, task: ClaimedTask, *, delay: float) -> None:
    """Nothing was tried: the same is owed in `delay` seconds. Raises `LeaseLost`."""
    await finish(session, task)
    attempts, age = task.attempts - 1, task.age_seconds
    await add(session, task.kind, task.call_id, delay=delay, attempts=attempts, age_seconds=age)


async def backlogs(connection: AsyncConnection) -> dict[Queue, Backlog]:
    """What waits, in every queue."""
    since = func.greatest(Task.due_at, Task.lease_until)  # of a task that lost its worker, since its lease ran out
    counted = []
    for queue in Queue:
        due = (Task.queue == queue, Task.due_at <= func.now())
        waiting = (
            select(since.label("since")).where(*due, _is_unclaimed()).order_by(Task.due_at).limit(BACKLOG_COUNTED)
        ).subquery()
        oldest = func.coalesce(func.extract("epoch", func.now() - func.min(waiting.c.since)), 0)
        held = exists().where(*due, Task.lease_until >= func.now())
        counted.append(select(literal(queue.value), func.count(), oldest, held).select_from(waiting))
    rows = await connection.execute(union_all(*counted))
    return {Queue(queue): Backlog(count, float(seconds), held) for queue, count, seconds, held in rows}


async def make_all_due(db: Database, kind: TaskKind) -> None:
    """Make all tasks of this kind due now; the sweep finds them."""
    hastening = update(Task).where(Task.kind == kind, Task.due_at > func.now(), _is_unclaimed())
    async with db.statement() as connection:
        await connection.execute(hastening.values(due_at=func.now()))


async def make_due(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """Have this work of the call done now: the task it waits in is made due, with its attempts all before it, or one is
    added. With the call's lock."""
    hastening = (
        update(Task)
        .where(Task.kind == kind, Task.call_id == call_id, _is_unclaimed())
        .values(due_at=func.now(), lease_token=None, attempts=0)
        .returning(Task.id)
    )
    for task_id in await session.scalars(hastening):
        hint_after_commit(session, AddedTask(task_id, QUEUE_OF[kind]))
        return
    await add(session, kind, call_id)


async def replace(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """Have this work of the call done anew; who is at it loses it. With the call's lock."""
    await session.execute(delete(Task).where(Task.kind == kind, Task.call_id == call_id))
    await add(session, kind, call_id)


async def discard(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """The call needs this work no more. A worker that is at it finishes it. With the call's lock."""
    await session.execute(delete(Task).where(Task.kind == kind, Task.call_id == call_id, _is_unclaimed()))


def is_pending(kind: TaskKind) -> ColumnElement[bool]:
    """Whether such a task of the call is open, as part of a statement on calls."""
    return exists().where(Task.call_id == Call.id, Task.kind == kind)


def _is_unclaimed() -> ColumnElement[bool]:
    return or_(Task.lease_until.is_(None), Task.lease_until < func.now())


def _lease_is_held(task: ClaimedTask) -> tuple[ColumnElement[bool], ...]:
    return Task.id == task.id, Task.lease_token == task.lease_token


def arq_pool(redis_url: str) -> ArqRedis:
    """A client of Valkey for arq. The timeouts are what keeps a frozen Valkey from freezing us; JSON because arq's
    default, pickle, lets whoever writes to Valkey run code here."""
    pool = BlockingConnectionPool.from_url(
        redis_url, max_connections=32, timeout=5, socket_timeout=5, socket_connect_timeout=2
    )
    return ArqRedis(pool, job_serializer=to_json, job_deserializer=json.loads)


def arq_queue(queue: Queue) -> str:
    """The queue's name in Valkey."""
    return f"ringback:{queue}"


def to_json(job: dict[str, Any]) -> bytes:
    """arq's serializer."""
    return json.dumps(job, default=repr).encode()


class Hints:
    """Tells arq of tasks, in the background and at best effort: no request waits for Valkey, none fails with it.

    Those that come while one batch is on its way leave together in the next. This writes what arq's `enqueue_job`
    does, in one round trip for all instead of three for each; that was a fifth of what a create cost.
    """

    _MOST_WAITING = 1000  # beyond this Valkey is down or frozen, and the sweep will find the tasks

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._waiting: list[AddedTask] = []
        self._sending: asyncio.Task[None] | None = None

    def send(self, task: AddedTask) -> None:
        """Returns at once. The job's id is the task's and the attempt's, so that one hinted twice is run once."""
        if len(self._waiting) < self._MOST_WAITING:
            self._waiting.append(task)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())

    def send_added(self, session: AsyncSession) -> None:
        """Send the hints of all tasks that a committed session added. For `Database(after_commit=…)`."""
        for task in session.info.pop("added_tasks", ()):
            self.send(task)

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            now = int(time() * 1000)
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for task in batch:  # a job is there before its id is in the queue
                        job_id = f"task:{task.id}:{task.attempts}"
                        job = serialize_job(JOB, (task.id,), {}, None, now, serializer=to_json)
                        due = now + int(task.delay * 1000)
                        pipe.set(job_key_prefix + job_id, job, px=due - now + _JOB_LIFE_MS)
                        pipe.zadd(arq_queue(task.queue), {job_id: due}, lt=True)  # never later than it was
                    await pipe.execute()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("hints_lost", tasks=len(batch), error=repr(error))

    async def aclose(self) -> None:
        """Let what is waiting go out, then close the client."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=2)
        await self._redis.aclose(close_connection_pool=True)
