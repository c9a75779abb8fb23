"""A worker process. Its parts run side by side: arq's consumer, the sweep and the heartbeat, and for calls also the
listeners and the retention loop. The process ends on a signal, or when one of its parts ends.

arq only brings tasks to a worker quickly. Leases, retries and schedules are in `app.tasks`.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog

from app import metrics, monitoring, providers, schema, tasks
from app.call_rules import RulesReader
from app.db import Database
from app.engine_models import Queue
from app.hints import Hints, arq_pool
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from worker import retention_loop
from worker.consumer import Consumer
from worker.context import Context, receivers, recording_hosts
from worker.gates import Gates
from worker.heartbeat import Heartbeat
from worker.listener import Listeners
from worker.slots import Slots
from worker.sweep import Sweep

log = structlog.get_logger()

POOL_SIZE = 8
"""Connections of each of the two pools of a worker, of any queue."""
_DRAIN_AFTER_FAILURE_SECONDS = 2.0
_CANCEL_SECONDS = 0.2
_CLOSE_SECONDS = 2.0
"""For each step of closing. A frozen server must not keep this process alive."""


async def run(settings: Settings, queue: Queue) -> int:
    """Work until SIGTERM or SIGINT. Then let tasks finish for `shutdown_grace_seconds`. Returns the exit code."""
    logging.getLogger("arq").setLevel(logging.WARNING)  # arq logs a line per job at the info level, as our own logs do
    context = _open(settings)  # until here a signal ends the process at once (`worker.__main__`)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with monitoring.running(settings, queue):
        waiting = asyncio.create_task(schema.wait_until_usable(context.db, and_reachable=True))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
        await _cancel([waiting])
        stopping.cancel()
        return await work(context, queue, stop)


async def work(context: Context, queue: Queue, stop: asyncio.Event) -> int:
    """Run all parts of a worker until `stop` is set, and close the context.

    Returns the exit code, 1 if a part ended by itself. Then the process ends, and its supervisor starts it again.
    """
    settings, worker_id = context.settings, uuid4()
    size = {
        Queue.CALLS: settings.call_concurrency,
        Queue.CALLBACKS: settings.callback_concurrency,
        # One more than are recognized, so that a recording that takes minutes to decode delays no other.
        Queue.TRANSCRIPTS: settings.transcript_concurrency + 1,
    }[queue]
    slots = Slots(size)
    kinds = [kind for kind, of in tasks.QUEUE_OF.items() if of is queue]
    metrics.start_worker(queue, kinds, size, lambda: slots.running)
    consumer, sweep = Consumer(context, queue, slots, size), Sweep(context, queue, slots)
    heartbeat, listeners = Heartbeat(context.db, queue, worker_id), Listeners(context, worker_id)
    parts = {
        "consumer": consumer.run(),
        "sweep": sweep.run(settings.sweep_seconds),
        "heartbeat": heartbeat.run(),
    }
    if queue is Queue.CALLS:
        parts["cleaning"] = retention_loop.run(context)
        parts["listeners"] = listeners.run()
    structlog.contextvars.bind_contextvars(worker=f"{queue}-{worker_id.hex[:6]}")
    log.info("worker_started", queue=queue, pid=os.getpid())

    running = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    ended = [part for part in running if part.done()]
    for part in ended:
        error = None if part.cancelled() else part.exception()
        why = "it returned" if error is None else repr(error)
        log.error("worker_part_ended", part=part.get_name(), error=why, exc_info=error)

    log.info("worker_stopping", running=slots.running)
    slots.close()
    await slots.drain(_DRAIN_AFTER_FAILURE_SECONDS if ended else settings.shutdown_grace_seconds)
    await _cancel(running)
    await _at_most(_CLOSE_SECONDS, heartbeat.leave(), listeners.leave(), consumer.aclose(), context.hints.aclose())
    await _at_most(
        _CLOSE_SECONDS,
        context.providers.aclose(),
        context.recognizer.aclose(),
        context.summarizer.aclose(),
        context.outbound.aclose(),
        context.db.dispose(),
    )
    log.info("worker_stopped")
    return 1 if ended else 0


async def _cancel(parts: list[asyncio.Task[None]]) -> None:
    """Cancel them until they end, for a while. `asyncio.wait_for` of Python 3.11, which the client of Valkey uses,
    loses a cancel that comes at the moment when it is done."""
    until = monotonic() + _CLOSE_SECONDS
    while (left := [part for part in parts if not part.done()]) and monotonic() < until:
        for part in left:
            part.cancel()
        await asyncio.wait(left, timeout=_CANCEL_SECONDS)


async def _at_most(seconds: float, *closings: Coroutine[Any, Any, None]) -> None:
    """Run these together, for at most `seconds`. What fails or hangs is only logged, because the process ends
    anyway."""
    begun = [asyncio.create_task(closing) for closing in closings]
    done, hanging = await asyncio.wait(begun, timeout=seconds)
    for task in hanging:
        task.cancel()
    failed = [repr(task.exception()) for task in done if task.exception() is not None]
    if failed or hanging:
        log.warning("not_closed", errors=failed, hanging=len(hanging))


def _open(settings: Settings) -> Context:
    hints = Hints(arq_pool(settings.redis_url))
    db = Database(
        settings.database_url,
        pool_size=POOL_SIZE,
        pooler=settings.database_pooler,
        after_commit=hints.send_noted,
    )
    return Context(
        settings=settings,
        db=db,
        hints=hints,
        providers=ProviderDirectory(db, settings),
        provider_links=providers.provider_links(settings),
        rules=RulesReader(db, settings),
        gates=Gates(),
        storage=providers.storage(settings),
        recognizer=providers.recognizer(settings),
        summarizer=providers.summarizer(),
        outbound=providers.outbound(settings),
        links=providers.links(settings),
        receivers=receivers(settings),
        recording_hosts=recording_hosts(settings),
    )
