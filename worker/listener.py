"""Listens to the providers' events, for all workers. Of each provider one worker at a time is the listener, by a lease
in the database.

A listener that dies, freezes or loses its network loses the lease in seconds, and another worker listens. Two listeners
at once do no harm, because an event counts once (`calls.apply_events`). Events during a gap are found by tracking: when
a listener connects, every live call of the provider is tracked at once.

A provider without a stream is watched instead: its listener examines it once a minute. Both write into the lease's row
whether the provider can be reached, for `/readyz`.
"""

import asyncio
from datetime import timedelta
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy import delete, func, or_
from sqlalchemy.dialects.postgresql import insert

from app import calls, metrics, tasks
from app.db import is_unreachable
from app.engine_models import ListenerRow, TaskKind
from app.telephony.base import ProviderError, ProviderEvent, TelephonyProvider
from app.telephony_providers import ProviderConfig
from worker.context import Context

log = structlog.get_logger()

LEASE_SECONDS = 3.0
_BEAT_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_WATCH_SECONDS = 60.0
_WATCH_AGAIN_SECONDS = 10.0
"""When to examine a provider again that could not be reached."""
_APPLIERS = 8
"""Events of different calls are applied in parallel, and those of one call in order."""


class Listeners:
    """The listeners of one worker: one for each provider. They follow changes of the providers."""

    def __init__(self, context: Context, worker_id: UUID) -> None:
        self._context = context
        self._worker_id = worker_id

    async def run(self) -> None:
        """Runs until cancelled. While the database is away it goes on with the providers that it knows."""
        running: dict[tuple[str, int], asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    configs = await self._context.providers.configs()
                except Exception as error:
                    log.warning("providers_not_read", error=repr(error))
                else:
                    wanted = {(config.name, config.version): config for config in configs.values()}
                    for key in running.keys() - wanted.keys():
                        running.pop(key).cancel()
                    for key in wanted.keys() - running.keys():
                        running[key] = asyncio.create_task(self._listen_to(wanted[key]), name=f"listener {key[0]}")
                    for task in running.values():
                        if task.done():
                            task.result()  # raises, and the worker ends
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _listen_to(self, config: ProviderConfig) -> None:
        listener = Listener(self._context, config.name, self._worker_id)
        try:
            await listener.run()
        finally:
            await listener.release()

    async def leave(self) -> None:
        """Release all leases, because the worker stops."""
        async with self._context.db.statement() as connection:
            await connection.execute(delete(ListenerRow).where(ListenerRow.worker_id == self._worker_id))


class Listener:
    """The listener of one worker to one provider."""

    def __init__(self, context: Context, provider: str, worker_id: UUID) -> None:
        self._context = context
        self._provider = provider
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
                        log.info("listener_leads", provider=self._provider)
                        listening = group.create_task(self._listen())
                    elif not leading and listening is not None:
                        log.warning("listener_deposed", provider=self._provider)
                        listening.cancel()
                        listening = None
                    await asyncio.sleep(_BEAT_SECONDS)
            finally:
                if listening is not None:
                    listening.cancel()

    async def release(self) -> None:
        """Release the lease, because the provider's options have changed, or it was removed."""
        ours = (ListenerRow.worker_id == self._worker_id, ListenerRow.provider == self._provider)
        async with self._context.db.statement() as connection:
            await connection.execute(delete(ListenerRow).where(*ours))

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
            .values(provider=self._provider, **ours)
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
        """Runs until cancelled."""
        try:
            while True:
                began, pause = monotonic(), _RECONNECT_SECONDS
                try:
                    async with self._context.providers.use(self._provider) as provider:
                        if provider.capabilities.stream:
                            await self._receive(provider)
                            self._lost("the connection was closed")
                        else:
                            pause = await self._watch(provider)
                except ProviderError as error:
                    self._lost(str(error))
                except Exception as error:  # whatever the error is, listening must go on
                    log.exception("listener_failed", provider=self._provider)
                    self._lost(repr(error))
                # A connection that was cut is mostly back at once. A provider that is away takes longer. One that
                # disconnects us in favour of another listener must not be fought over.
                if self._problem is not None and self._connected and monotonic() - began > _RECONNECT_SECONDS:
                    pause = 0.1
                await asyncio.sleep(pause)
                self._connected = self._problem is None
        finally:
            self._connected = False

    def _lost(self, problem: str) -> None:
        self._problem = problem
        metrics.listener_disconnected(self._provider)
        log.warning("listener_disconnected", provider=self._provider, problem=problem)

    async def _receive(self, provider: TelephonyProvider) -> None:
        """Returns when the provider closes the stream."""
        async with provider.listen() as events:
            log.info("listener_connected", provider=self._provider)
            self._connected, self._problem = True, None
            # Events until now were missed, so every live call is tracked.
            await tasks.make_all_due(self._context.db, TaskKind.TRACK, self._provider)
            async for event in events:
                self._queues[hash(event.call_id) % _APPLIERS].put_nowait(event)

    async def _watch(self, provider: TelephonyProvider) -> float:
        """Examine the provider. Returns in how many seconds to do it again."""
        findings = [] if provider.capabilities.simulated else [finding async for finding in provider.check()]
        wrong = next((finding for finding in findings if not finding.ok), None)
        if wrong is not None:
            self._connected = False
            self._lost(f"{wrong.what}: {wrong.seen or 'missing'}")
            return _WATCH_AGAIN_SECONDS
        self._connected, self._problem = True, None
        return _WATCH_SECONDS

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
