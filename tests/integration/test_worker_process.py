"""A whole worker: whatever happens to arq and its queue, calls are dialed once, and the worker stops on a signal."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import structlog
from arq.connections import ArqRedis
from sqlalchemy import func, update
from sqlalchemy.engine import make_url

from app import tasks
from app.engine_models import Queue, Task, TaskKind
from app.hints import arq_queue
from app.settings import Settings
from app.tasks import ClaimedTask
from tests.integration.isolated_worker import PATIENCE_SECONDS, IsolatedWorker
from worker import retention_loop
from worker.context import Context
from worker.main import work
from worker.runner import HANDLERS

QUEUE = arq_queue(Queue.CALLS)
NEVER = 3600.0
ROOT = Path(__file__).parents[2]


# Faults of arq and its queue


async def nothing(isolated: IsolatedWorker) -> dict[str, object]:
    return {}


async def refused(isolated: IsolatedWorker) -> dict[str, object]:
    """Valkey refuses the first command of arq's loop over its queue, and accepts everything else."""
    await isolated.redis.acl_setuser(
        "refused", enabled=True, passwords=["+refused"], categories=["+@all"], commands=["-zrangebyscore"], keys=["*"]
    )
    port = make_url(isolated.settings.redis_url).port
    return {"redis_url": f"redis://refused:refused@127.0.0.1:{port}/7"}


async def poisoned(isolated: IsolatedWorker) -> dict[str, object]:
    await isolated.redis.zadd(QUEUE, {b"\xff\xfe": 1})
    await put_job(isolated.redis, "no time", et=None)
    return {}


async def full_of_stale_keys(isolated: IsolatedWorker) -> dict[str, object]:
    """As killed workers with hundreds of unfinished jobs leave it, by arq's own protocol."""
    async with isolated.redis.pipeline() as pipe:
        for number in range(600):
            pipe.zadd(QUEUE, {f"stale:{number}": number + 1})
            pipe.psetex(f"arq:in-progress:stale:{number}", 6 * 3600 * 1000, b"1")
        await pipe.execute()
    return {}


async def gone(isolated: IsolatedWorker) -> dict[str, object]:
    return {"redis_url": "redis://127.0.0.1:1/0"}


async def test_a_recording_that_takes_long_to_decode_delays_no_other(
    isolated: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = await isolated.place(1), await isolated.place(1)
    reached, done = asyncio.Event(), asyncio.Event()

    async def transcribe(context: Context, task: ClaimedTask) -> None:
        if task.call_id in slow:
            reached.set()
            await done.wait()
        else:
            await reached.wait()
            done.set()
        async with context.db.transaction() as session:
            await tasks.finish(session, task)

    monkeypatch.setitem(HANDLERS, TaskKind.TRANSCRIBE, replace(HANDLERS[TaskKind.TRANSCRIBE], run=transcribe))
    for call_id in (*slow, *other):
        async with isolated.context.db.transaction() as session:
            await tasks.add(session, TaskKind.TRANSCRIBE, call_id)
    async with isolated.working(Queue.TRANSCRIPTS, transcript_concurrency=1), asyncio.timeout(PATIENCE_SECONDS):
        await done.wait()


@pytest.mark.parametrize("fault", [nothing, refused, poisoned, full_of_stale_keys, gone])
async def test_calls_are_dialed_once_despite_faults_of_arq(
    isolated: IsolatedWorker, fault: Callable[[IsolatedWorker], Awaitable[dict[str, object]]]
) -> None:
    before = await isolated.place(5)
    settings = await fault(isolated)
    async with isolated.working(**settings):
        await isolated.ended(before)
        await isolated.ended(await isolated.place(5))


async def put_job(redis: ArqRedis, job_id: str, score: float = 1, **changed: object) -> None:
    """A job as arq writes it, except for what is changed."""
    job = {"t": None, "f": "run_task", "a": [1], "k": {}, "et": int(time.time() * 1000), **changed}
    await redis.set(f"arq:job:{job_id}", json.dumps(job))
    await redis.zadd(QUEUE, {job_id: score})


async def put_bytes(redis: ArqRedis, job_id: str, job: bytes) -> None:
    await redis.set(f"arq:job:{job_id}", job)
    await redis.zadd(QUEUE, {job_id: 1})


async def put_other_type(redis: ArqRedis, key: str, job_id: str) -> None:
    await put_job(redis, job_id)
    await redis.delete(key)
    await redis.sadd(key, "a set")  # type: ignore[misc]  # redis-py's types know of no asyncio here


async def replace_key(redis: ArqRedis, key: str) -> None:
    """Replace the key by a string. Returns when the worker has removed it."""
    await redis.set(key, "a text")
    while await redis.type(key) == b"string":
        await asyncio.sleep(0.02)
        if key != QUEUE:
            return


Poison = Callable[[ArqRedis], Awaitable[object]]
POISON: dict[str, Poison] = {
    "an id that is not UTF-8": lambda redis: redis.zadd(QUEUE, {b"\xff\xfe": 1}),
    "an empty id": lambda redis: redis.zadd(QUEUE, {"": 1}),
    "no job under the id": lambda redis: redis.zadd(QUEUE, {"missing": 1}),
    "enqueued at a text": lambda redis: put_job(redis, "text", et="yesterday"),
    "enqueued at null": lambda redis: put_job(redis, "null", et=None),
    "enqueued at 1e300": lambda redis: put_job(redis, "late", et=1e300),
    "enqueued before the year 1": lambda redis: put_job(redis, "early", et=-(10**17)),
    "due at 0": lambda redis: put_job(redis, "zero", score=0),
    "due at minus infinity": lambda redis: put_job(redis, "ever", score=float("-inf")),
    "a function that nobody has": lambda redis: put_job(redis, "other", f="os.system"),
    "a function that is a list": lambda redis: put_job(redis, "list", f=["run_task"]),
    "no arguments": lambda redis: put_job(redis, "none", a=[]),
    "arguments that are a number": lambda redis: put_job(redis, "number", a=7),
    "arguments that are null": lambda redis: put_job(redis, "nothing", a=None),
    "a task id that is a text": lambda redis: put_job(redis, "id text", a=["1; DROP TABLE calls"]),
    "a task id that no column holds": lambda redis: put_job(redis, "id large", a=[10**30]),
    "a list of keyword arguments": lambda redis: put_job(redis, "keywords", k=["a"]),
    "a number of tries that is a text": lambda redis: put_job(redis, "tries", t="many"),
    "no JSON": lambda redis: put_bytes(redis, "pickle", b"\x80\x05}."),
    "JSON of another shape": lambda redis: put_bytes(redis, "shape", b"[1]"),
    "JSON too deep": lambda redis: put_bytes(redis, "deep", b"[" * 200_000),
    "a large job": lambda redis: put_job(redis, "large", a=["x" * 3_000_000]),
    "a job that is a set": lambda redis: put_other_type(redis, "arq:job:job list", "job list"),
    "tries that are a set": lambda redis: put_other_type(redis, "arq:retry:tries list", "tries list"),
    "aborted jobs that are a text": lambda redis: replace_key(redis, "arq:abort"),
    "a queue that is a text": lambda redis: replace_key(redis, QUEUE),
}


async def test_one_bad_job_is_skipped_and_removed_and_the_queue_goes_on(isolated: IsolatedWorker) -> None:
    """Without the sweep, every call is dialed by arq's queue. After a restart the bad job must be gone, too."""
    with structlog.testing.capture_logs() as logs:
        async with isolated.working(sweep_seconds=NEVER):
            for name, poison in POISON.items():
                await poison(isolated.redis)
                try:
                    await isolated.ended(await isolated.place(1))
                except TimeoutError:
                    pytest.fail(f"no call is dialed after {name}")
                # The next one must not meet this one: what removes it might remove both, and log one.
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while await isolated.redis.zcount(QUEUE, "-inf", time.time() * 1000):
                        await asyncio.sleep(0.02)
    assert await isolated.redis.keys("arq:job:[a-z]*") == await isolated.redis.keys("arq:job:task:*")
    skipped = {line["job_id"] for line in logs if line["event"] == "job_skipped"}
    assert {"\\xff\\xfe", "text", "null", "late", "early", "list", "tries", "job list", "tries list"} <= skipped
    assert {line["key"] for line in logs if line["event"] == "misshapen_key_removed"} == {QUEUE, "arq:abort"}


async def test_stale_keys_do_not_even_slow_arq_down(isolated: IsolatedWorker) -> None:
    await full_of_stale_keys(isolated)
    async with isolated.working(sweep_seconds=NEVER):
        await isolated.ended(await isolated.place(3))


async def test_arq_and_the_sweep_together_keep_to_the_limit(isolated: IsolatedWorker) -> None:
    isolated.provider.holds_until = 3
    ids = await isolated.place(40)
    async with isolated.context.db.transaction() as session:
        await session.execute(update(Task).values(due_at=func.now() - timedelta(seconds=10)))
    async with isolated.working(call_concurrency=3, sweep_seconds=0.01):
        await isolated.ended(ids)
    assert isolated.provider.most_at_once == 3


# The parts of a worker


async def test_when_a_part_ends_the_worker_says_why_and_ends(
    isolated: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Context) -> None:
        raise RuntimeError("a bug in the cleaning")

    monkeypatch.setattr(retention_loop, "run", fail)
    with structlog.testing.capture_logs() as logs:
        assert await work(isolated.opened(), Queue.CALLS, asyncio.Event()) == 1
    (line,) = (entry for entry in logs if entry["event"] == "worker_part_ended")
    assert (line["part"], line["error"]) == ("cleaning", "RuntimeError('a bug in the cleaning')")


async def test_a_part_that_loses_a_cancel_is_canceled_again(
    isolated: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancels: list[str] = []

    async def loses_one(_: Context) -> None:
        for cancel in ("lost", "obeyed"):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancels.append(cancel)

    monkeypatch.setattr(retention_loop, "run", loses_one)
    stop = asyncio.Event()
    stop.set()
    assert await work(isolated.opened(), Queue.CALLS, stop) == 0
    assert cancels == ["lost", "obeyed"]


async def test_when_arqs_loop_just_ends_the_worker_ends(
    isolated: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_: object) -> None:
        pass

    monkeypatch.setattr("arq.worker.Worker.async_run", end)
    with structlog.testing.capture_logs() as logs:
        assert await work(isolated.opened(), Queue.CALLS, asyncio.Event()) == 1
    assert [line["part"] for line in logs if line["event"] == "worker_part_ended"] == ["consumer"]


# Stopping


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a frozen server: it accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def start(settings: Settings, queue: Queue = Queue.CALLS, /, **changed: str) -> "subprocess.Popen[str]":
    values = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "DATA_DIR": str(settings.data_dir),
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        **changed,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "worker", queue],
        env={**os.environ, **{f"RINGBACK_{name}": value for name, value in values.items()}},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def catches_sigterm(process: "subprocess.Popen[str]") -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def read_until_started(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert any("worker_started" in line or "waiting_for_database" in line for line in process.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_worker_stops_cleanly_while_it_starts_and_while_it_is_idle_and_while_its_servers_are_frozen(
    isolated_settings: Settings, silent_port: int
) -> None:
    frozen = {
        "DATABASE_URL": f"postgresql+asyncpg://nobody@127.0.0.1:{silent_port}/x",
        "REDIS_URL": f"redis://127.0.0.1:{silent_port}/0",
    }
    starting, idle, deserted = start(isolated_settings), start(isolated_settings), start(isolated_settings, **frozen)
    while not catches_sigterm(starting):
        time.sleep(0.001)
    starting.terminate()
    for process in (idle, deserted):
        read_until_started(process)
        process.terminate()
    for process in (starting, idle, deserted):
        rest, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, rest
        assert ("worker_stopped" in rest) == (process is not starting)


@pytest.mark.parametrize(("queue", "niceness"), [(Queue.CALLS, 0), (Queue.TRANSCRIPTS, 10)])
def test_recognition_leaves_the_cpu_to_calls(isolated: IsolatedWorker, queue: Queue, niceness: int) -> None:
    with start(isolated.settings, queue) as process:
        read_until_started(process)
        assert psutil.Process(process.pid).nice() - psutil.Process().nice() == niceness
        process.kill()
