"""The installation says that it is ready only if its workers work."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert

from app import health
from app.engine_models import Queue, Task, Worker
from tests.integration.isolated_worker import IsolatedWorker


async def add_tasks(
    isolated: IsolatedWorker, queue: Queue, count: int, *, overdue: float, leased: float | None = None
) -> None:
    """Tasks that are overdue by some seconds, with a lease that ends in some seconds."""
    kind = {Queue.CALLS: "hangup", Queue.CALLBACKS: "deliver", Queue.TRANSCRIPTS: "transcribe"}[queue]
    ids = await isolated.place(count)
    async with isolated.context.db.transaction() as session:
        await session.execute(delete(Task).where(Task.call_id.in_(ids)))
        lease_until = None if leased is None else func.now() + timedelta(seconds=leased)
        due_at = func.now() - timedelta(seconds=overdue)
        for call_id in ids:
            values = {"kind": kind, "queue": queue, "call_id": call_id, "due_at": due_at, "lease_until": lease_until}
            await session.execute(insert(Task).values(values))


@pytest.mark.parametrize(
    ("queue", "waiting", "held", "named"),
    [
        (Queue.CALLS, {"overdue": 5}, None, None),
        (Queue.CALLS, {"overdue": 40}, None, "the calls workers do not work: 3 of their tasks are overdue"),
        (Queue.CALLS, {"overdue": 40}, 20, "the oldest for 40 s"),  # some are being worked on, but calls must not wait
        (Queue.CALLS, {"overdue": 9999, "leased": 20}, None, None),  # all of these are being worked on
        (Queue.CALLS, {"overdue": 9999, "leased": -3}, None, None),  # their worker died a moment ago
        (Queue.CALLS, {"overdue": 9999, "leased": -99}, None, "the oldest for 99 s"),  # and nobody claimed them since
        (Queue.CALLS, {"overdue": -60}, None, None),
        (Queue.TRANSCRIPTS, {"overdue": 9999}, 20, None),  # a long queue, of which one recording is being worked on
        (Queue.TRANSCRIPTS, {"overdue": 9999}, None, "restart them or add one: `ringback worker transcripts`"),
        (Queue.TRANSCRIPTS, {"overdue": 9999}, -5, "the transcripts workers do not work"),
        (Queue.CALLBACKS, {"overdue": 70}, None, "the callbacks workers do not work"),
    ],
)
async def test_readiness_is_decided_by_the_oldest_task_that_nobody_has(
    isolated: IsolatedWorker, queue: Queue, waiting: dict[str, float], held: float | None, named: str | None
) -> None:
    async with isolated.context.db.transaction() as session:
        for each in Queue:
            await session.execute(insert(Worker).values(id=func.gen_random_uuid(), queue=each, host="here"))
    await add_tasks(isolated, queue, 3, **waiting)
    if held is not None:
        await add_tasks(isolated, queue, 1, overdue=0, leased=held)
    missing = await health.missing_parts(isolated.context.db, isolated.redis)
    assert (named is None) == (missing == []), missing
    assert (named or "") in "".join(part.problem for part in missing)
