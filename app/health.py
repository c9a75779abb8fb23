"""Whether this installation can do its work: PostgreSQL, Valkey, live workers of both kinds, and the telephony
system that they listen to."""

import asyncio
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from app.db import Database
from app.models import Listener, Queue, Worker

WORKER_SILENT_SECONDS = 6
"""A worker that has not said that it lives for this long counts as dead."""

_PATIENCE_SECONDS = 2.0


async def missing_parts(db: Database, redis: Redis, provider: str) -> list[str]:
    """What is not there, in words for the person who runs it; empty when everything is."""
    checks = await asyncio.gather(_missing_in_database(db, provider), _missing_valkey(redis))
    return [part for parts in checks for part in parts]


async def _missing_in_database(db: Database, provider: str) -> list[str]:
    alive = (
        select(Worker.queue).where(Worker.seen_at > func.now() - timedelta(seconds=WORKER_SILENT_SECONDS)).distinct()
    )
    # Only a provider with a stream has a listener. One that left no word of late has no worker, which is said anyway.
    listening = select(Listener.problem).where(
        Listener.provider == provider, Listener.lease_until > func.now(), Listener.connected_since.is_(None)
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS), db.statement() as connection:
            queues = set(await connection.scalars(alive))
            lost = list(await connection.scalars(listening))
    except Exception as error:  # whatever it is, it is PostgreSQL that cannot be used
        return [
            f"PostgreSQL cannot be used: {type(error).__name__}. Check RINGBACK_DATABASE_URL and `ringback migrate`"
        ]
    return [
        *[f"no live {queue} worker: start `ringback worker {queue}`" for queue in Queue if queue not in queues],
        *[f"{provider}: {problem or 'connecting'}. `ringback telephony check` tells more" for problem in lost],
    ]


async def _missing_valkey(redis: Redis) -> list[str]:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await redis.ping()
    except (RedisError, OSError, TimeoutError) as error:
        return [f"Valkey cannot be used: {type(error).__name__}. Check RINGBACK_REDIS_URL"]
    return []
