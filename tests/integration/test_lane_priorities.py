"""Which of a user's recordings is transcribed first."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, text, update

from app import lanes, tasks, transcripts
from app.db import Database
from app.engine_models import Priority, Task, TaskKind
from app.models import Call, TranscriptRow, TranscriptStatus, User
from tests.conftest import new_user
from tests.integration.isolated_worker import IsolatedWorker
from tests.integration.queued_calls import LEASE, queue_calls


async def add_transcriptions(isolated: IsolatedWorker, user: User, count: int) -> list[str]:
    """Calls of the user whose recordings are to be transcribed, as their priority is now."""
    ids = await queue_calls(isolated.context.db, isolated.context.hints, user, "environment", count)
    await add_tasks(isolated.context.db, ids)
    return ids


async def add_tasks(db: Database, call_ids: list[str]) -> None:
    for call_id in call_ids:
        async with db.transaction() as session:
            await tasks.replace(session, TaskKind.TRANSCRIBE, call_id)


async def claim_transcriptions(db: Database, count: int) -> list[str]:
    """The calls of the next tasks, each claimed alone."""
    lane = tasks.LANE_OF[TaskKind.TRANSCRIBE]
    claims = [await lanes.claim(db, lane, limit=1, lease_seconds=LEASE) for _ in range(count)]
    return [task.call_id for claim in claims for task in claim.tasks]


async def test_transcripts_of_fresh_calls_go_first(isolated: IsolatedWorker) -> None:
    """Then those of reported recordings, then those that are made again. Each in the order of their age."""
    db = isolated.context.db
    again = await add_transcriptions(isolated, isolated.user, 4)
    async with db.transaction() as session:
        of_calls = update(TranscriptRow).where(TranscriptRow.call_id.in_(again))
        await session.execute(of_calls.values(status=TranscriptStatus.FAILED))
        for call_id in again:
            await transcripts.reopen(session, call_id)
    await add_tasks(db, again)
    reported = await add_transcriptions(isolated, isolated.user, 3)
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id.in_(reported)).values(only_reported=True))
    await add_tasks(db, reported)
    fresh = await add_transcriptions(isolated, isolated.user, 3)
    assert await claim_transcriptions(db, 12) == [*fresh, *reported, *again], "nothing is left behind"


async def test_one_claim_of_many_keeps_the_order(isolated: IsolatedWorker) -> None:
    db = isolated.context.db
    again = await add_transcriptions(isolated, isolated.user, 5)
    async with db.transaction() as session:
        await session.execute(update(Task).where(Task.call_id.in_(again)).values(priority=Priority.AGAIN))
    fresh = await add_transcriptions(isolated, isolated.user, 2)
    claim = await lanes.claim(db, tasks.LANE_OF[TaskKind.TRANSCRIBE], limit=3, lease_seconds=LEASE)
    chosen = {task.call_id for task in claim.tasks}
    assert chosen == {*fresh, again[0]}


async def test_another_users_turn_comes_before_a_priority(isolated: IsolatedWorker) -> None:
    """One user's thousand fresh recordings do not delay the single one of another that is made again."""
    db = isolated.context.db
    other = await new_user(db)
    await add_transcriptions(isolated, isolated.user, 10)
    (again,) = await add_transcriptions(isolated, other, 1)
    async with db.transaction() as session:
        await session.execute(update(Task).where(Task.call_id == again).values(priority=Priority.AGAIN))
    assert again in await claim_transcriptions(db, 2)


async def test_a_priority_that_is_not_due_holds_up_no_other(isolated: IsolatedWorker) -> None:
    db = isolated.context.db
    fresh = await add_transcriptions(isolated, isolated.user, 1)
    (again,) = await add_transcriptions(isolated, isolated.user, 1)
    async with db.transaction() as session:
        later = update(Task).where(Task.call_id.in_(fresh), Task.kind == TaskKind.TRANSCRIBE)
        await session.execute(later.values(due_at=func.now() + timedelta(hours=1)))
        await session.execute(update(Task).where(Task.call_id == again).values(priority=Priority.AGAIN))
    assert await claim_transcriptions(db, 2) == [again]


class _RolledBack(Exception):
    """Leaves a transaction without a commit."""


_MANY_TASKS = text("""
INSERT INTO tasks (kind, queue, call_id, lane, user_id, priority, due_at)
SELECT 'dial', 'calls', :call_id, :lane, :user_id, n % 3, now() - n * interval '1 second'
FROM generate_series(1, 20000) n
""")


async def test_a_claim_reads_only_what_it_claims(isolated: IsolatedWorker) -> None:
    db, user, lane = isolated.context.db, isolated.user, tasks.LANE_OF[TaskKind.TRANSCRIBE]
    (call_id,) = await add_transcriptions(isolated, user, 1)
    with pytest.raises(_RolledBack):
        async with db.transaction() as session:
            await session.execute(_MANY_TASKS, {"call_id": call_id, "lane": lane, "user_id": user.id})
            await session.execute(text("ANALYZE tasks"))
            values = lanes.claim_values(lane, 5, LEASE)
            explained = await session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {lanes.CLAIM}"), values)
            plan = explained.scalar_one()[0]["Plan"]
            raise _RolledBack
    scans = [node for node in nodes_of(plan) if node.get("Relation Name") == "tasks" and "Scan" in node["Node Type"]]
    assert scans
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"], plan
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) < 50, plan


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes_of(part)
