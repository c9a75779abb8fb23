"""A worker process: arq takes jobs off one queue; beside it run the sweep and, for calls, listener and cleaning.

arq brings a job to a worker quickly and no more: leases, retries and schedules are ours (see `app.tasks`).
"""

import asyncio
import json
import logging
import os
import signal
from uuid import uuid4

import structlog
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import RedisError

from app import providers, tasks
from app.db import Database
from app.models import Queue
from app.settings import Settings
from app.tasks import Hints, arq_pool, arq_queue
from worker import cleaning
from worker.context import Context, receivers, recording_hosts
from worker.listener import Listener
from worker.runner import run_task
from worker.sweep import Sweep

log = structlog.get_logger()

_POLL_SECONDS = 0.05  # the floor under the hand-over from a POST to its dial; 2 % of a core when idle
_LONGEST_JOB_SECONDS = 6 * 3600  # a lease says who has a task; this only ends what hangs for ever
_VALKEY_RETRY_SECONDS = 1.0
_POOL_SIZE = 8


async def run(settings: Settings, queue: Queue) -> None:
    """Work until SIGTERM or SIGINT, then let tasks finish for `shutdown_grace_seconds`."""
    logging.getLogger("arq").setLevel(logging.ERROR)  # a line per job, which our own logs have with the call's id
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)

    context = _open(settings)
    worker_id = uuid4()
    sweep = Sweep(context, queue, worker_id)
    structlog.contextvars.bind_contextvars(worker=f"{queue}-{worker_id.hex[:6]}")
    log.info("worker_started", queue=queue, pid=os.getpid(), provider=context.provider.name)

    sweeping = asyncio.create_task(sweep.run(settings.sweep_seconds))
    listener = Listener(context, worker_id)
    listening = asyncio.create_task(listener.run()) if queue is Queue.CALLS else None
    tidying = asyncio.create_task(cleaning.run(context)) if queue is Queue.CALLS else None
    consumer = Consumer(context, queue)
    consuming = asyncio.create_task(consumer.run())
    await stop.wait()
    log.info("worker_stopping", running=consumer.running)
    consumer.stop_taking()
    sweeping.cancel()
    await consumer.drain(settings.shutdown_grace_seconds)
    background = [task for task in (consuming, sweeping, listening, tidying) if task is not None]
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    try:
        await sweep.leave()
        await listener.leave()
    except Exception as error:
        log.warning("leaving_unnoticed", error=repr(error))
    await consumer.aclose()
    await _close(context)
    log.info("worker_stopped")


class Consumer:
    """arq's worker on one queue, started anew when Valkey breaks under it. What was running runs on."""

    def __init__(self, context: Context, queue: Queue) -> None:
        settings = context.settings
        self._context = context
        self._queue = queue
        self._max_jobs = {
            Queue.CALLS: settings.call_concurrency,
            Queue.CALLBACKS: settings.callback_concurrency,
            Queue.TRANSCRIPTS: settings.transcript_concurrency,
        }[queue]
        self._running: set[asyncio.Task[None]] = set()
        self._worker: ArqWorker | None = None
        self._pool = arq_pool(settings.redis_url)

    @property
    def running(self) -> int:
        """How many tasks are under way."""
        return len(self._running)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._worker = self._new_worker()
            try:
                await self._worker.async_run()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("valkey_unavailable", error=repr(error))
                await asyncio.sleep(_VALKEY_RETRY_SECONDS)

    def stop_taking(self) -> None:
        """Take no more jobs."""
        if self._worker is not None:
            self._worker.allow_pick_jobs = False

    async def drain(self, seconds: float) -> None:
        """Wait for what is running, this long at most; what is left then is another worker's after its lease."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def aclose(self) -> None:
        """Close the connections to Valkey."""
        await self._pool.aclose(close_connection_pool=True)

    def _new_worker(self) -> ArqWorker:
        return ArqWorker(
            functions=[func(self._run_job, name=tasks.JOB)],  # type: ignore[arg-type]  # arq's protocol is looser
            queue_name=arq_queue(self._queue),
            redis_pool=self._pool,
            job_serializer=tasks.to_json,
            job_deserializer=json.loads,
            handle_signals=False,
            max_jobs=self._max_jobs,
            job_timeout=_LONGEST_JOB_SECONDS,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            poll_delay=_POLL_SECONDS,
            log_results=False,
        )

    async def _run_job(self, _: dict[str, object], task_id: int) -> None:
        # A task of its own, so that it outlives an arq worker that Valkey broke.
        running = asyncio.create_task(run_task(self._context, task_id))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        await asyncio.shield(running)


def _open(settings: Settings) -> Context:
    return Context(
        settings=settings,
        db=Database(settings.database_url, pool_size=_POOL_SIZE),
        hints=Hints(arq_pool(settings.redis_url)),
        provider=providers.telephony(settings),
        storage=providers.storage(settings),
        recognizer=providers.recognizer(settings),
        summarizer=providers.summarizer(settings),
        outbound=providers.outbound(settings),
        links=providers.links(settings),
        receivers=receivers(settings),
        recording_hosts=recording_hosts(settings),
    )


async def _close(context: Context) -> None:
    await context.provider.aclose()
    await context.recognizer.aclose()
    await context.summarizer.aclose()
    await context.outbound.aclose()
    await context.hints.aclose()
    await context.db.dispose()
