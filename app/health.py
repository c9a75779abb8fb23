"""Readiness: whether PostgreSQL, Valkey, a worker for each queue and every telephony provider are there."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from app import schema, tasks
from app.db import Database
from app.engine_models import ListenerRow, ProviderRow, Queue, Worker
from app.tasks import Backlog

WORKER_SILENT_SECONDS = 6
"""A worker without a heartbeat for this long counts as dead."""

LATE_SECONDS = {Queue.CALLS: 15.0, Queue.CALLBACKS: 60.0, Queue.TRANSCRIPTS: 60.0}
"""A queue is stuck when its oldest task waits for longer than this, even if its workers have heartbeats.

A live worker's sweep claims a task within seconds. The other queues may be long because their workers are busy, but
calls must never wait.
"""

INSTALLATION_HEADER = "X-Ringback-Installation"
"""In answers of `/healthz`: which installation it is, so that `ringback doctor` knows where an address leads."""

_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class MissingPart:
    """Something that is not there. `problem` is for the operator."""

    problem: str
    is_vital: bool = True
    """New orders need it. False for a provider that only some DIDs use, because the calls of the others go on."""


async def missing_parts(db: Database, redis: Redis, *, patience: float = _PATIENCE_SECONDS) -> list[MissingPart]:
    """What is missing. Empty when everything is there. PostgreSQL and Valkey may take `patience` seconds to answer."""
    checks = await asyncio.gather(_missing_in_database(db, patience), _missing_valkey(redis, patience))
    return [part for parts in checks for part in parts]


async def _missing_in_database(db: Database, patience: float) -> list[MissingPart]:
    alive = (
        select(Worker.queue).where(Worker.seen_at > func.now() - timedelta(seconds=WORKER_SILENT_SECONDS)).distinct()
    )
    # If a lease has run out, no calls worker lives, and that is reported anyway.
    listening = (
        select(ListenerRow.provider, ListenerRow.problem, ProviderRow.is_default)
        .join(ProviderRow, ProviderRow.name == ListenerRow.provider)
        .where(ListenerRow.lease_until > func.now(), ListenerRow.connected_since.is_(None))
        .order_by(ListenerRow.provider)
    )
    try:
        async with asyncio.timeout(patience), db.statement() as connection:
            unusable = await schema.find_problem(connection)
            if unusable is not None:
                return [MissingPart(unusable)]
            queues = set(await connection.scalars(alive))
            lost = (await connection.execute(listening)).all()
            backlogs = await tasks.backlogs(connection)
    except Exception as error:  # any error here means that PostgreSQL cannot be used
        problem = "Check RINGBACK_DATABASE_URL and `ringback migrate`"
        return [MissingPart(f"PostgreSQL cannot be used: {type(error).__name__}. {problem}")]
    silent = [f"no live {queue} worker: start `ringback worker {queue}`" for queue in Queue if queue not in queues]
    late = [_late(queue, backlogs[queue]) for queue in Queue if queue in queues and _is_late(queue, backlogs[queue])]
    return [
        *[MissingPart(problem) for problem in (*silent, *late)],
        *[
            MissingPart(
                f"{name}: {problem or 'connecting'}. `ringback providers check {name}` says more", is_vital=is_default
            )
            for name, problem, is_default in lost
        ],
    ]


def _is_late(queue: Queue, backlog: Backlog) -> bool:
    busy = backlog.working and queue is not Queue.CALLS
    return backlog.oldest_seconds > LATE_SECONDS[queue] and not busy


def _late(queue: Queue, backlog: Backlog) -> str:
    count = f"{backlog.count} or more" if backlog.count == tasks.BACKLOG_COUNTED else str(backlog.count)
    return (
        f"the {queue} workers do not work: {count} of their tasks are overdue, the oldest for "
        f"{backlog.oldest_seconds:.0f} s. Read their log, and restart them or add one: `ringback worker {queue}`"
    )


async def _missing_valkey(redis: Redis, patience: float) -> list[MissingPart]:
    try:
        async with asyncio.timeout(patience):
            await redis.ping()
    except (RedisError, OSError, TimeoutError) as error:
        return [MissingPart(f"Valkey cannot be used: {type(error).__name__}. Check RINGBACK_REDIS_URL")]
    return []
