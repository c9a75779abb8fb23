"""Users take turns, a provider's gate lets through what the provider can bear, and nobody is called too late."""

import asyncio
import secrets
from collections import Counter
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import calls, lanes, tasks, telephony_providers
from app.db import Database
from app.engine_models import Queue, Task, TaskKind
from app.hints import Hints
from app.models import Call
from app.providers import vault
from app.settings import Settings
from app.tasks import ClaimedTask, LeaseLost, dial_lane
from app.telephony.base import CallStatus, Rejected
from app.telephony_providers import Limits, Pace
from tests.conftest import new_user
from tests.integration.call_runner import MakeCallRunner, ScriptedProvider, claim_out_of_turn
from tests.integration.current_calls import dial, ended, happen
from tests.integration.isolated_worker import IsolatedWorker
from tests.integration.queued_calls import LEASE, queue_calls
from worker import dial as worker_dial
from worker.gates import Gates


@pytest.fixture
async def provider(db: Database, migrated: Settings) -> str:
    """A provider whose lane no other test uses."""
    name = f"p-{secrets.token_hex(5)}"
    async with db.transaction() as session:
        await telephony_providers.add(session, name, "simulator", options={}, secrets={}, vault=vault(migrated))
    return name


async def users_of(db: Database, claimed: list[ClaimedTask]) -> list[str]:
    async with db.transaction() as session:
        found = await session.execute(select(Task.id, Task.user_id).where(Task.id.in_([task.id for task in claimed])))
        owners = {task_id: user_id for task_id, user_id in found}
    return [owners[task.id] or "" for task in claimed]


# Turns


async def test_one_call_does_not_wait_for_another_users_many(db: Database, hints: Hints, provider: str) -> None:
    busy, other = await new_user(db), await new_user(db)
    await queue_calls(db, hints, busy, provider, 40)
    lane = dial_lane(provider)
    first = await lanes.claim(db, lane, limit=5, lease_seconds=LEASE)
    assert await users_of(db, first.tasks) == [busy.id] * 5, "nobody else waits"
    await queue_calls(db, hints, other, provider, 1)
    second = await lanes.claim(db, lane, limit=1, lease_seconds=LEASE)
    assert await users_of(db, second.tasks) == [other.id]


async def test_users_share_a_lane_evenly_however_many_tasks_each_has(db: Database, hints: Hints, provider: str) -> None:
    users = [await new_user(db) for _ in range(3)]
    for user, count in zip(users, (30, 9, 3), strict=True):
        await queue_calls(db, hints, user, provider, count)
    claimed: list[str] = []
    for _ in range(9):
        claimed += await users_of(db, (await lanes.claim(db, dial_lane(provider), limit=1, lease_seconds=LEASE)).tasks)
    assert sorted(Counter(claimed).values()) == [3, 3, 3]
    rest = await lanes.claim(db, dial_lane(provider), limit=100, lease_seconds=LEASE)
    more = await lanes.claim(db, dial_lane(provider), limit=100, lease_seconds=LEASE)
    assert len(rest.tasks) + len(more.tasks) == 42 - 9, "nothing is left behind"


async def test_many_workers_claim_different_tasks_of_a_lane(db: Database, hints: Hints, provider: str) -> None:
    users = [await new_user(db) for _ in range(3)]
    for user in users:
        await queue_calls(db, hints, user, provider, 8)
    lane = dial_lane(provider)
    claims = await asyncio.gather(*(lanes.claim(db, lane, limit=1, lease_seconds=LEASE) for _ in range(20)))
    claimed = [task.id for claim in claims for task in claim.tasks]
    assert len(claimed) == len(set(claimed)) == 20


async def test_what_is_not_due_is_not_claimed(db: Database, hints: Hints, provider: str) -> None:
    user = await new_user(db)
    ids = await queue_calls(db, hints, user, provider, 2)
    async with db.transaction() as session:
        later = update(Task).where(Task.call_id == ids[0])
        await session.execute(later.values(due_at=func.now() + timedelta(hours=1)))
    claim = await lanes.claim(db, dial_lane(provider), limit=9, lease_seconds=LEASE)
    assert [task.call_id for task in claim.tasks] == [ids[1]]
    assert claim.tasks[0].provider == provider
    assert not (await lanes.claim(db, dial_lane(provider), limit=9, lease_seconds=LEASE)).tasks


def test_every_queue_has_its_lanes() -> None:
    assert lanes.lanes_of(Queue.CALLS, ["a", "b"]) == ["dial:a", "dial:b"]
    assert lanes.lanes_of(Queue.TRANSCRIPTS, ["a"]) == ["transcribe"]
    assert lanes.lanes_of(Queue.CALLBACKS, ["a"]) == ["deliver"]


@pytest.mark.parametrize("kind", [TaskKind.TRANSCRIBE, TaskKind.DELIVER])
async def test_transcripts_and_callbacks_take_turns_too(isolated: IsolatedWorker, kind: TaskKind) -> None:
    db = isolated.context.db
    other = await new_user(db)
    lane = tasks.LANE_OF[kind]
    for user, count in ((isolated.user, 20), (other, 1)):
        for call_id in await queue_calls(db, isolated.context.hints, user, "environment", count):
            async with db.transaction() as session:
                await tasks.add(session, kind, call_id)
    two = await lanes.claim(db, lane, limit=2, lease_seconds=LEASE)
    assert sorted(await users_of(db, two.tasks)) == sorted([isolated.user.id, other.id])


# Gates


async def set_limits(db: Database, provider: str, limits: Limits) -> None:
    async with db.transaction() as session:
        await telephony_providers.limit(session, provider, limits)


async def test_no_more_calls_are_up_than_the_provider_can_bear(db: Database, hints: Hints, provider: str) -> None:
    await queue_calls(db, hints, await new_user(db), provider, 30)
    await set_limits(db, provider, Limits(calls_at_once=5))
    claimed: list[ClaimedTask] = []
    for _ in range(4):  # each time, the first who comes to the gate finds nobody there
        claims = await asyncio.gather(
            *(lanes.claim_through_gate(db, provider, limit=2, lease_seconds=LEASE) for _ in range(20))
        )
        claimed += [task for claim in claims for task in claim.tasks]
    assert len(claimed) == 5
    assert all(claim.shut_seconds > 0 for claim in claims if not claim.tasks)
    for task in claimed[:2]:  # two are dialed now, and are up; three are about to be dialed
        await dial(db, task.call_id)
        async with db.transaction() as session:
            await session.execute(text("DELETE FROM tasks WHERE id = :id"), {"id": task.id})
    assert not (await lanes.claim_through_gate(db, provider, limit=9, lease_seconds=LEASE)).tasks
    await happen(db, claimed[0].call_id, ended(CallStatus.BUSY))
    assert not (await lanes.claim_through_gate(db, provider, limit=9, lease_seconds=LEASE)).tasks, "a leg is still up"
    async with db.transaction() as session:
        of_call = Task.call_id == claimed[0].call_id
        await session.execute(delete(Task).where(of_call, Task.kind == TaskKind.HANGUP))
    assert len((await lanes.claim_through_gate(db, provider, limit=9, lease_seconds=LEASE)).tasks) == 1


async def test_a_call_that_is_dialed_while_the_gate_counts_is_counted(
    db: Database, hints: Hints, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the calls that are about to be dialed for those that are up."""
    await queue_calls(db, hints, await new_user(db), provider, 3)
    await set_limits(db, provider, Limits(calls_at_once=1))
    (task,) = (await lanes.claim_through_gate(db, provider, limit=9, lease_seconds=LEASE)).tasks
    scalar = AsyncSession.scalar
    waiting = [task]

    async def then_it_is_dialed(session: AsyncSession, *arguments: Any, **options: Any) -> Any:
        found = await scalar(session, *arguments, **options)
        while waiting:
            dialed = waiting.pop()
            await dial(db, dialed.call_id)
            async with db.transaction() as other:
                await tasks.finish(other, dialed)
        return found

    monkeypatch.setattr(AsyncSession, "scalar", then_it_is_dialed)
    assert not (await lanes.claim_through_gate(db, provider, limit=9, lease_seconds=LEASE)).tasks
    assert not waiting


async def test_a_worker_that_was_frozen_past_its_lease_does_not_dial(make_runner: MakeCallRunner) -> None:
    """The gate has stopped counting it."""
    runner = await make_runner()
    async with runner.context.db.transaction() as session:
        task_id = (await session.scalars(select(Task.id).filter_by(call_id=runner.call_id, kind="dial"))).one()
    task = await claim_out_of_turn(runner.context.db, task_id)
    assert task is not None
    async with runner.context.db.transaction() as session:
        past = func.now() - timedelta(seconds=1)
        await session.execute(update(Task).where(Task.id == task_id).values(lease_until=past))
    with pytest.raises(LeaseLost):
        await worker_dial.run(runner.context, task)
    assert (await runner.call()).status == CallStatus.QUEUED
    assert not runner.provider.orders


async def test_all_workers_share_the_pace(db: Database, hints: Hints, provider: str) -> None:
    await queue_calls(db, hints, await new_user(db), provider, 10)
    await set_limits(db, provider, Limits(pace=Pace(1, 60.0)))
    claims = await asyncio.gather(
        *(lanes.claim_through_gate(db, provider, limit=5, lease_seconds=LEASE) for _ in range(10))
    )
    assert sum(len(claim.tasks) for claim in claims) == 1
    assert all(claim.shut_seconds for claim in claims)
    later = await lanes.claim_through_gate(db, provider, limit=5, lease_seconds=LEASE)
    assert 30 < later.shut_seconds <= 60


async def test_a_pace_does_not_undo_the_turns(db: Database, hints: Hints, provider: str) -> None:
    busy, other = await new_user(db), await new_user(db)
    await queue_calls(db, hints, busy, provider, 20)
    await queue_calls(db, hints, other, provider, 1)
    await set_limits(db, provider, Limits(pace=Pace(1000, 1.0)))
    claimed: list[str] = []
    while len(claimed) < 2:
        claim = await lanes.claim_through_gate(db, provider, limit=5, lease_seconds=LEASE)
        claimed += await users_of(db, claim.tasks)
        await asyncio.sleep(claim.shut_seconds)
    assert sorted(claimed) == sorted([busy.id, other.id])


async def test_a_worker_passes_gates_as_they_open(isolated: IsolatedWorker) -> None:
    """With hints that come while the gate is shut, and are dropped."""
    db = isolated.context.db
    await set_limits(db, "environment", Limits(calls_at_once=2, pace=Pace(50, 1.0)))
    try:
        async with isolated.working(call_concurrency=20):
            await isolated.ended(await isolated.place(12))
        assert isolated.provider.most_at_once <= 2
    finally:
        await set_limits(db, "environment", Limits(calls_at_once=0, pace=Pace(0, 1.0)))


async def test_a_worker_that_is_frozen_at_a_gate_delays_no_other_lane(isolated: IsolatedWorker) -> None:
    """arq's hints are gone, so that the sweep has to bring every call."""
    db = isolated.context.db
    async with db.transaction() as session:
        await telephony_providers.add(
            session, "a-gated", "simulator", options={}, secrets={}, vault=vault(isolated.settings)
        )
    await set_limits(db, "a-gated", Limits(calls_at_once=1))
    ids = await isolated.place(3)
    await isolated.redis.flushdb()
    try:
        async with db.transaction() as frozen:
            await frozen.execute(text("SELECT FROM providers WHERE name = 'a-gated' FOR NO KEY UPDATE"))
            async with isolated.working(), asyncio.timeout(20):
                await isolated.ended(ids)
    finally:
        async with db.transaction() as session:
            await telephony_providers.remove(session, "a-gated")


async def test_a_gate_that_opened_during_a_look_is_looked_at_again() -> None:
    gates = Gates()
    before = monotonic()
    gates.shut("dial:a", 0.001)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await gates.wait(60, since=before)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await gates.wait(60, since=monotonic())


# Too late


async def test_nobody_is_called_for_an_old_click(make_runner: MakeCallRunner) -> None:
    runner = await make_runner()
    async with runner.context.db.transaction() as session:
        call = await session.get_one(Call, runner.call_id)
        call.created_at -= timedelta(hours=3)
    await runner.run("dial")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", "It could not be dialed within 900 s (RINGBACK_QUEUE_SECONDS)")
    assert runner.provider.orders == []
    assert "It could not be dialed" in ((await runner.transcript()).failure or "")


async def test_a_call_that_waits_at_a_gate_for_too_long_ends(isolated: IsolatedWorker) -> None:
    db = isolated.context.db
    ids = await isolated.place(3)
    async with db.transaction() as session:
        past = func.now() - timedelta(hours=3)
        await session.execute(update(Call).where(Call.id.in_(ids)).values(created_at=past))
        await session.execute(update(Task).where(Task.call_id.in_(ids)).values(due_at=past))
    await set_limits(db, "environment", Limits(pace=Pace(1, 3600.0)))
    try:
        async with isolated.working(), asyncio.timeout(60):
            over = select(func.count()).where(Call.id.in_(ids), Call.status == "failed")
            while True:
                async with db.statement() as connection:
                    if (await connection.execute(over)).scalar_one() == 3:
                        break
                await asyncio.sleep(0.05)
        assert isolated.provider.orders == []
    finally:
        await set_limits(db, "environment", Limits(pace=Pace(0, 1.0)))


async def test_a_provider_that_is_busy_gets_the_call_later(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(placing=Rejected("429: too many calls", retry_after=5)))
    await runner.run("dial")
    assert (await runner.call()).status == "queued"
    assert await runner.open_tasks() == ["dial"]


# References


async def test_a_reference_is_of_one_call(make_runner: MakeCallRunner) -> None:
    lost, other = await make_runner(), await make_runner()
    db = lost.context.db
    reference = f"ref-{secrets.token_hex(6)}"
    other.provider.placing = type(other.provider.placing)(reference)
    await lost.run("dial")
    await other.run("dial")
    async with db.transaction() as session:
        assert not await calls.save_found_reference(session, lost.call_id, reference)
    assert (await other.call()).provider_reference == reference


async def test_what_the_provider_answers_counts_more_than_what_was_found(make_runner: MakeCallRunner) -> None:
    lost, other = await make_runner(), await make_runner()
    db = lost.context.db
    reference = f"ref-{secrets.token_hex(6)}"
    async with db.transaction() as session:
        assert await calls.save_found_reference(session, lost.call_id, reference)
    other.provider.placing = type(other.provider.placing)(reference)
    await other.run("dial")
    assert (await other.call()).provider_reference == reference
    assert (await lost.call()).provider_reference is None
