"""Listens to a provider's events, for all workers. One worker at a time leads, by a lease in the database.

A leader that dies, freezes or loses its network loses the lease in seconds, and another worker listens. Two listeners
at once do no harm, because an event counts once (`calls.apply_events`). Events during a gap are found by tracking: when
a listener connects, every live call is tracked at once.
"""

import asyncio
from datetime import timedelta
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy import delete, func, or_
from sqlalchemy.dialects.postgresql import insert

from app import calls, tasks
from app.db import is_unreachable
from app.models import ListenerRow, TaskKind
from app.telephony.base import ProviderError, ProviderEvent
from worker.context import Context

log = structlog.get_logger()

LEASE_SECONDS = 3.0
_BEAT_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_APPLIERS = 8
"""Events of different calls are applied in parallel, and those of one call in order."""


class Listener:
    """The listener of one worker."""

    def __init__(self, context: Context, worker_id: UUID) -> None:
        self._context = context
        self._worker_id = worker_id
        self._connected = False
        self._problem: str | None = None
        self._queues: list[asyncio.Queue[ProviderEvent]] = [asyncio.Queue() for _ in range(_APPLIERS)]

    async def run(self) -> None:
        """Runs until cancelled, and leads whenever no other worker does. While the database is away it waits."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._apply(queue))
            listening: asyncio.Task[None] | None = None
            try:
                while True:
                    leading = await self._lead()
                    if leading and listening is None:
                        log.info("listener_leads", provider=self._context.provider.name)
                        listening = group.create_task(self._listen())
                    elif not leading and listening is not None:
                        log.warning("listener_deposed", provider=self._context.provider.name)
                        listening.cancel()
                        listening = None
                    await asyncio.sleep(_BEAT_SECONDS)
            finally:
                if listening is not None:
                    listening.cancel()

    async def leave(self) -> None:
        """Release the lease, because the worker stops."""
        async with self._context.db.statement() as connection:
            await connection.execute(delete(ListenerRow).where(ListenerRow.worker_id == self._worker_id))

    async def _lead(self) -> bool:
        """Take or renew the lease, and write the state of the connection."""
        ours = {
            "worker_id": self._worker_id,
            "lease_until": func.now() + timedelta(seconds=LEASE_SECONDS),
            "connected_since": func.now() if self._connected else None,
            "problem": self._problem,
        }
        taking = (
            insert(ListenerRow)
            .values(provider=self._context.provider.name, **ours)
            .on_conflict_do_update(
                index_elements=["provider"],
                set_={**ours, "connected_since": func.coalesce(ListenerRow.connected_since, func.now())}
                if self._connected
                else ours,
                where=or_(ListenerRow.worker_id == self._worker_id, ListenerRow.lease_until < func.now()),
            )
            .returning(ListenerRow.worker_id)
        )
        try:
            async with asyncio.timeout(LEASE_SECONDS), self._context.db.statement() as connection:
                return (await connection.execute(taking)).one_or_none() is not None
        except Exception as error:
            log.warning("listener_without_database", error=repr(error))
            return False

    async def _listen(self) -> None:
        provider = self._context.provider
        connected_at = 0.0
        try:
            while True:
                try:
                    async with provider.listen() as events:
                        log.info("listener_connected", provider=provider.name)
                        self._connected, self._problem, connected_at = True, None, monotonic()
                        # Events until now were missed, so every live call is tracked.
                        await tasks.make_all_due(self._context.db, TaskKind.TRACK)
                        async for event in events:
                            self._queues[hash(event.call_id) % _APPLIERS].put_nowait(event)
                    self._problem = "the connection was closed"
                except ProviderError as error:
                    self._problem = str(error)
                except Exception as error:  # whatever the error is, listening must go on
                    log.exception("listener_failed", provider=provider.name)
                    self._problem = repr(error)
                log.warning("listener_disconnected", provider=provider.name, problem=self._problem)
                # A connection that was cut is mostly back at once. A provider that is away takes longer. One that
                # disconnects us in favour of another listener must not be fought over.
                lasted = monotonic() - connected_at if self._connected else 0.0
                await asyncio.sleep(0.1 if lasted > _RECONNECT_SECONDS else _RECONNECT_SECONDS)
                self._connected = False
        finally:
            self._connected = False

    async def _apply(self, queue: "asyncio.Queue[ProviderEvent]") -> None:
        """Runs until cancelled. While the database is away events wait, because they may be the only report of
        an end."""
        while True:
            event = await queue.get()
            while True:
                try:
                    await self._apply_one(event)
                    break
                except Exception as error:
                    log.warning("event_not_applied", call_id=event.call_id, key=event.event.key, error=repr(error))
                    if not is_unreachable(error):
                        break
                    await asyncio.sleep(0.5)

    async def _apply_one(self, event: ProviderEvent) -> None:
        async with self._context.db.transaction() as session:
            await calls.apply_events(
                session,
                event.call_id,
                [event.event],
                max_call_seconds=self._context.settings.max_call_seconds,
            )
