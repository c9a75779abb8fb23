"""Work to be done, as rows in PostgreSQL. arq and Valkey only make a worker start sooner.

A task exists if and only if the change that caused it was committed. Its life:

    add      in the transaction of the change; after the commit a *hint* tells arq
    claim    by one worker, for a lease that the worker renews while it works
    finish   deletes the row, in the transaction of the task's result; fails if the lease was lost
    retry    releases the row, due later

A worker that dies, or is frozen past its lease, loses the task to another worker. What the first one then tries to
write is rolled back with its `finish`. A lost hint costs seconds, because the sweep claims overdue tasks without one.

Locks are taken in one order, so that no two transactions wait for each other. First the call's row (`lock_call`,
`finish`), then the user, then the user's numbers. What was read under the lock stays true until the commit.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db import Database
from app.engine_models import Priority, ProviderRow, Queue, Task, TaskKind
from app.models import Call, TranscriptRow

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

# A job may reach a worker some milliseconds before the task is due by the database's clock. Without this slack the task
# would wait for the sweep.
CLOCK_SLACK = timedelta(milliseconds=50)


BACKLOG_COUNTED = 1000
"""At most so many tasks of a queue's backlog are counted."""

_IS_KNOWN = text("tasks.kind IN ({})".format(", ".join(f"'{kind.value}'" for kind in QUEUE_OF)))
"""During an upgrade a newer version may add tasks of a kind that this one cannot do. They are left to its workers."""

LANE_OF: dict[TaskKind, str] = {
    TaskKind.DIAL: "dial:",
    TaskKind.TRANSCRIBE: "transcribe",
    TaskKind.DELIVER: "deliver",
}
"""The lanes of these kinds (`app.lanes`). That of a dial task goes on with the name of its provider. Each kind has its
own, so that a worker that does not know a kind does not know its lane either."""

_AGE = func.extract("epoch", func.now() - Task.created_at).label("age")
_PROVIDER = select(Call.provider).where(Call.id == Task.call_id).scalar_subquery().label("provider")
_TRACEPARENT = select(Call.traceparent).where(Call.id == Task.call_id).scalar_subquery().label("traceparent")


class LeaseLost(Exception):
    """Another worker claimed this task, or finished it. The transaction must be rolled back."""


@dataclass(frozen=True, slots=True)
class AddedTask:
    """A task that was added, and needs a hint."""

    id: int
    queue: Queue
    lane: str | None = None
    delay: float = 0.0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    id: int
    kind: TaskKind
    call_id: str
    provider: str
    """The call's provider."""
    attempts: int
    """How often it was claimed, including this time."""
    lease_token: UUID
    age_seconds: float = 0.0
    """How long ago it was added. A postponed task keeps its age."""
    traceparent: str | None = None
    """That of the call."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The tasks of one queue that are due and unclaimed."""

    count: int
    """At most `BACKLOG_COUNTED`."""
    oldest_seconds: float
    """For how long the oldest could have been claimed. 0 if there is none."""
    working: bool
    """Whether a worker holds the lease of another task of this queue."""


async def lock_call(session: AsyncSession, call_id: str) -> None:
    """Lock the call's row until the transaction ends. No other transaction writes for this call meanwhile."""
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
    """Add a task for the call, due in `delay` seconds. It exists once the session commits.

    A call has at most one task of most kinds. If there is one already, this does nothing.
    """
    queue = QUEUE_OF[kind]
    values = {
        "kind": kind,
        "queue": queue,
        "call_id": call_id,
        "due_at": func.now() + timedelta(seconds=delay),
        "attempts": attempts,
        "created_at": func.now() - timedelta(seconds=age_seconds),
    }
    if kind in LANE_OF:
        values["user_id"] = _of_call(Call.user_id, call_id)
        if kind is TaskKind.TRANSCRIBE:
            values["priority"] = _priority(call_id)
        values["lane"] = LANE_OF[kind] if kind is not TaskKind.DIAL else _of_call(dial_lane(Call.provider), call_id)
    adding = insert(Task).values(values).on_conflict_do_nothing().returning(Task.id, Task.lane)
    added = (await session.execute(adding)).one_or_none()
    if added is not None:
        hint_after_commit(session, AddedTask(added.id, queue, added.lane, delay, attempts))


def dial_lane(provider: Any) -> Any:
    """The lane of the provider's dial tasks: a text, or for a column an expression."""
    return LANE_OF[TaskKind.DIAL] + provider


def _priority(call_id: str) -> ScalarSelect[Any]:
    """The `Priority` of the call's transcript."""
    again, reported = (TranscriptRow.round > 0, int(Priority.AGAIN)), (Call.only_reported, int(Priority.REPORTED))
    chosen = case(again, reported, else_=int(Priority.FRESH))
    joined = select(chosen).join(TranscriptRow, TranscriptRow.call_id == Call.id)
    return joined.where(Call.id == call_id).scalar_subquery()


def _of_call(expression: Any, call_id: str) -> ScalarSelect[Any]:
    return select(expression).where(Call.id == call_id).scalar_subquery()


def hint_after_commit(session: AsyncSession, task: AddedTask) -> None:
    """Send a hint of this task once the session has committed (`Hints.send_noted`)."""
    session.info.setdefault("added_tasks", []).append(task)


async def claim(db: Database, task_id: int, *, lease_seconds: float) -> ClaimedTask | None:
    """Claim the task, if it is due, unclaimed, and in no lane."""
    is_due = Task.due_at <= func.now() + CLOCK_SLACK
    due = and_(Task.id == task_id, Task.lane.is_(None), is_due, is_unclaimed(), _IS_KNOWN)
    claimed = await _claim(db, due, lease_seconds)
    return claimed[0] if claimed else None


async def claim_overdue(
    db: Database,
    queue: Queue,
    *,
    limit: int,
    overdue_seconds: float,
    lease_seconds: float,
    kind: TaskKind | None = None,
) -> list[ClaimedTask]:
    """Claim up to `limit` unclaimed tasks that were due `overdue_seconds` ago, oldest first: those that are in no lane,
    or of this kind.

    Workers that do this at the same time claim different tasks, and none waits for another.
    """
    late = func.now() - timedelta(seconds=overdue_seconds)
    chosen = (
        select(Task.id)
        .where(Task.queue == queue, Task.due_at <= late, is_unclaimed(), _IS_KNOWN)
        .where(Task.lane.is_(None) if kind is None else Task.kind == kind)
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
        .returning(Task.id, Task.kind, Task.call_id, _PROVIDER, Task.attempts, Task.lease_token, _AGE, _TRACEPARENT)
    )
    async with db.statement() as connection:
        return [claimed_task(row) for row in await connection.execute(claiming)]


def claimed_task(row: Any) -> ClaimedTask:
    """The task of a row that a claim returned."""
    return ClaimedTask(
        row.id,
        TaskKind(row.kind),
        row.call_id,
        row.provider,
        row.attempts,
        row.lease_token,
        float(row.age),
        row.traceparent,
    )


async def renew(db: Database, task: ClaimedTask, *, lease_seconds: float) -> bool:
    """Renew the lease. False if it was lost."""
    renewing = (
        update(Task).where(*_lease_is_held(task)).values(lease_until=func.now() + timedelta(seconds=lease_seconds))
    )
    async with db.statement() as connection:
        return (await connection.execute(renewing)).rowcount == 1


async def finish(session: AsyncSession, task: ClaimedTask, *, in_time: bool = False) -> None:
    """Delete the task, which this transaction completes. Locks the call. Raises `LeaseLost` if another worker has the
    task, and with `in_time` also if the lease has run out and nobody has it."""
    await lock_call(session, task.call_id)
    deleting = delete(Task).where(*_lease_is_held(task))
    if in_time:
        deleting = deleting.where(Task.lease_until >= func.clock_timestamp())
    deleted = await session.scalar(deleting.returning(Task.id))
    if deleted is None:
        raise LeaseLost(f"task {task.id} was taken over")


async def retry_later(session: AsyncSession, task: ClaimedTask, *, delay: float, error: str) -> None:
    """Release the task, due again in `delay` seconds. Raises `LeaseLost`."""
    giving_back = (
        update(Task)
        .where(*_lease_is_held(task))
        .values(lease_token=None, lease_until=None, due_at=func.now() + timedelta(seconds=delay), last_error=error)
        .returning(Task.queue, Task.lane)
    )
    released = (await session.execute(giving_back)).one_or_none()
    if released is None:
        raise LeaseLost(f"task {task.id} was taken over")
    hint_after_commit(session, AddedTask(task.id, Queue(released.queue), released.lane, delay, task.attempts))


async def postpone(session: AsyncSession, task: ClaimedTask, *, delay: float) -> None:
    """Release the task without counting an attempt, due again in `delay` seconds. Raises `LeaseLost`."""
    await finish(session, task)
    attempts, age = task.attempts - 1, task.age_seconds
    await add(session, task.kind, task.call_id, delay=delay, attempts=attempts, age_seconds=age)


async def backlogs(connection: AsyncConnection) -> dict[Queue, Backlog]:
    """The backlog of every queue."""
    since = func.greatest(Task.due_at, Task.lease_until)  # a task whose worker was lost waits since its lease ran out
    is_gated = or_(ProviderRow.calls_at_once.is_not(None), ProviderRow.pace_calls.is_not(None))
    gated = select(dial_lane(ProviderRow.name)).where(is_gated)  # these calls wait for others, and not for a worker
    counted = []
    for queue in Queue:
        due = (Task.queue == queue, Task.due_at <= func.now(), or_(Task.lane.is_(None), Task.lane.not_in(gated)))
        waiting = (
            select(since.label("since")).where(*due, is_unclaimed()).order_by(Task.due_at).limit(BACKLOG_COUNTED)
        ).subquery()
        oldest = func.coalesce(func.extract("epoch", func.now() - func.min(waiting.c.since)), 0)
        held = exists().where(*due, Task.lease_until >= func.now())
        counted.append(select(literal(queue.value), func.count(), oldest, held).select_from(waiting))
    rows = await connection.execute(union_all(*counted))
    return {Queue(queue): Backlog(count, float(seconds), held) for queue, count, seconds, held in rows}


async def make_all_due(db: Database, kind: TaskKind, provider: str) -> None:
    """Make all tasks of this kind for calls of this provider due now. The sweep finds them."""
    is_of_provider = exists().where(Call.id == Task.call_id, Call.provider == provider)
    hastening = update(Task).where(Task.kind == kind, Task.due_at > func.now(), is_unclaimed(), is_of_provider)
    async with db.statement() as connection:
        await connection.execute(hastening.values(due_at=func.now()))


async def make_due(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """Make the call's task of this kind due now, with all attempts, or add one. The caller holds the call's lock."""
    if not await hasten(session, kind, call_id):
        await add(session, kind, call_id)


async def hasten(session: AsyncSession, kind: TaskKind, call_id: str) -> bool:
    """Make the call's task of this kind due now, with all attempts. False if there is none, or a worker has it."""
    hastening = (
        update(Task)
        .where(Task.kind == kind, Task.call_id == call_id, is_unclaimed())
        .values(due_at=func.now(), lease_token=None, attempts=0)
        .returning(Task.id, Task.lane)
    )
    for made_due in await session.execute(hastening):
        hint_after_commit(session, AddedTask(made_due.id, QUEUE_OF[kind], made_due.lane))
        return True
    return False


async def replace(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """Replace the call's task of this kind by a new one. A worker that has it loses it. The caller holds the call's
    lock."""
    await session.execute(delete(Task).where(Task.kind == kind, Task.call_id == call_id))
    await add(session, kind, call_id)


async def discard(session: AsyncSession, kind: TaskKind, call_id: str) -> None:
    """Delete the call's task of this kind, unless a worker has it. The caller holds the call's lock."""
    await session.execute(delete(Task).where(Task.kind == kind, Task.call_id == call_id, is_unclaimed()))


def is_pending(kind: TaskKind) -> ColumnElement[bool]:
    """Whether the call has a task of this kind. For use in a statement on calls."""
    return exists().where(Task.call_id == Call.id, Task.kind == kind)


def is_unclaimed() -> ColumnElement[bool]:
    """Whether no worker has the task."""
    return or_(Task.lease_until.is_(None), Task.lease_until < func.now())


def _lease_is_held(task: ClaimedTask) -> tuple[ColumnElement[bool], ...]:
    return Task.id == task.id, Task.lease_token == task.lease_token
