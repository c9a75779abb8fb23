"""arq's worker on one queue. It brings a new task to a free slot within milliseconds.

arq is built for jobs that exist only in its queue. Here a job is a hint of a row in PostgreSQL. The row's lease says
who has the task, and the sweep finds what no hint brought. So a job is taken off the queue at once, and never marked as
in progress: such a mark outlives a killed worker and hides jobs. A job that cannot be read is removed and logged.
"""

import asyncio
import json
from contextlib import suppress
from time import time
from typing import Any

import structlog
from arq.constants import abort_jobs_ss, in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import RedisError, ResponseError

from app.engine_models import Queue
from app.hints import JOB, arq_pool, arq_queue, to_json
from worker.context import Context
from worker.runner import run_task
from worker.slots import Slots

log = structlog.get_logger()

_POLL_SECONDS = 0.05  # lower bound of the time from a POST to its dial; costs 2 % of a core when idle
_RETRY_SECONDS = 1.0
_SLOT_SECONDS = 10.0
"""How long a job waits for a slot that the sweep took first. After that, the sweep also runs the job's task."""
_JOB_SECONDS = 60.0
_CANCEL_SECONDS = 0.2
_SHOWN = 100
"""At most so many characters of a foreign job id are logged."""


class Consumer:
    """The consumer of one worker. It replaces arq's worker whenever the connection to Valkey breaks. Running tasks go
    on."""

    def __init__(self, context: Context, queue: Queue, slots: Slots, size: int) -> None:
        self._context = context
        self._queue = queue
        self._slots = slots
        self._size = size
        self._pool = arq_pool(context.settings.redis_url)

    async def run(self) -> None:
        """Runs until cancelled. While Valkey is away it waits. Raises what else arq raises."""
        while True:
            worker = self._new_worker()
            try:
                await worker.async_run()
                raise RuntimeError("arq's loop over its queue ended by itself")
            except ResponseError as error:
                log.warning("queue_unusable", queue=self._queue, error=repr(error))
                await worker.remove_misshapen_keys()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("valkey_unavailable", error=repr(error))
            finally:
                await worker.cancel_jobs()
            await asyncio.sleep(_RETRY_SECONDS)

    async def aclose(self) -> None:
        """Close the connections to Valkey."""
        await self._pool.aclose(close_connection_pool=True)

    def _new_worker(self) -> "_QueueWorker":
        return _QueueWorker(
            self._slots,
            functions=[func(self._start_task, name=JOB)],  # type: ignore[arg-type]  # arq's protocol is looser
            queue_name=arq_queue(self._queue),
            redis_pool=self._pool,
            job_serializer=to_json,
            job_deserializer=json.loads,
            handle_signals=False,
            max_jobs=self._size,
            job_timeout=_JOB_SECONDS,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            poll_delay=_POLL_SECONDS,
            log_results=False,
        )

    async def _start_task(self, _: dict[str, object], task_id: int, lane: str | None = None) -> None:
        """The only arq function."""
        if not isinstance(task_id, int) or not isinstance(lane, str | None):
            raise TypeError("a job's arguments are the id of a task and its lane")
        with suppress(TimeoutError):
            async with asyncio.timeout(_SLOT_SECONDS):
                is_open = await self._slots.wait()
            if is_open:
                self._slots.start(run_task(self._context, task_id, lane))


class _QueueWorker(ArqWorker):
    """arq's worker, with its own way to take jobs off the queue, and to handle a job that it cannot read."""

    def __init__(self, slots: Slots, **options: Any) -> None:
        super().__init__(**options)
        self._slots = slots

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take as many of these jobs as there are free slots. If several workers try, the one that removes a job has
        it."""
        pending = sum(not task.done() for task in self.tasks.values())
        wanted = job_ids[: max(0, self._slots.free - pending)]
        if not wanted:
            return
        async with self.pool.pipeline(transaction=False) as pipe:
            for job_id in wanted:
                pipe.zrem(self.queue_name, job_id)
            removed = await pipe.execute()
        for job_id, was_there in zip(wanted, removed, strict=True):
            if was_there:
                name = job_id.decode(errors="backslashreplace")
                self.tasks[name] = self.loop.create_task(self._run_or_skip(job_id, name))

    async def cancel_jobs(self) -> None:
        """Cancel the jobs that wait for a slot or for Valkey, so that none uses the pool after it is closed. The sweep
        runs their tasks."""
        while jobs := [job for job in self.tasks.values() if not job.done()]:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs, timeout=_CANCEL_SECONDS)  # a job that arq is about to start survives its cancel

    async def _run_or_skip(self, job_id: bytes, name: str) -> None:
        try:
            await self.run_job(job_id.decode(), int(time() * 1000))
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, ResponseError):
                await self._skip(job_id, name, error)
                await self.remove_misshapen_keys()
            # Otherwise Valkey is away, which the loop over the queue notices, too. The sweep finds the task.
        except Exception as error:
            await self._skip(job_id, name, error)

    async def _skip(self, job_id: bytes, name: str, error: Exception) -> None:
        log.error("job_skipped", job_id=name[:_SHOWN], error=repr(error))
        with suppress(RedisError, OSError, TimeoutError):
            prefixes = (job_key_prefix, retry_key_prefix, in_progress_key_prefix)
            await self.pool.delete(*(prefix.encode() + job_id for prefix in prefixes))

    async def remove_misshapen_keys(self) -> None:
        """Remove keys of arq that another program has overwritten with another type. They hold nothing that is
        needed."""
        with suppress(RedisError, OSError, TimeoutError):
            for key in (self.queue_name, abort_jobs_ss):
                if await self.pool.type(key) not in (b"zset", b"none"):
                    await self.pool.delete(key)
                    log.error("misshapen_key_removed", key=key)
