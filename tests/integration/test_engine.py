"""Tasks, dial attempts and a call's moves, on a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from app import accounts, call_lookups, calls, dial_attempts, providers, tasks
from app.call_state import TERMINAL, Mover, may_move
from app.db import Database
from app.engine_models import Queue, Task, TaskKind
from app.hints import Hints
from app.models import Call, CallEventRow, TranscriptRow, User
from app.new_calls import NewCall
from app.settings import Settings
from app.tasks import ClaimedTask, LeaseLost
from app.telephony.base import CUSTOMER_DIALED, Accepted, CallEvent, CallStatus, Leg, Talk
from tests.conftest import AGENT, CUSTOMER, creator_of
from tests.integration.call_runner import claim_out_of_turn, is_waiting_for_a_lock
from worker.context import Context

ORDER = NewCall(CUSTOMER, AGENT)
LEASE = 30.0


async def new_call(db: Database, hints: Hints, user: User) -> str:
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    return (await creator_of(db, hints).create(claims, ORDER)).id


async def task_of(db: Database, call_id: str, kind: TaskKind = TaskKind.DIAL) -> int:
    async with db.transaction() as session:
        return (await session.scalars(select(Task.id).filter_by(call_id=call_id, kind=kind))).one()


async def claim(db: Database, task_id: int) -> ClaimedTask:
    task = await claim_out_of_turn(db, task_id)
    assert task is not None
    return task


async def expire_lease(db: Database, task_id: int) -> None:
    """As for a worker that is dead or frozen."""
    async with db.transaction() as session:
        past = func.now() - timedelta(seconds=1)
        await session.execute(update(Task).where(Task.id == task_id).values(lease_until=past))


async def get(db: Database, call_id: str) -> Call:
    async with db.transaction() as session:
        return await session.get_one(Call, call_id)


@pytest.fixture
async def call_id(db: Database, hints: Hints, user: User) -> str:
    return await new_call(db, hints, user)


# Tasks


async def test_whoever_finishes_a_task_locks_its_call_first(context: Context, user: User) -> None:
    """A transaction that changes a call also locks it before it touches the call's tasks. Otherwise both would wait for
    each other."""
    db = context.db
    call_id = await new_call(db, context.hints, user)
    task = await claim(db, await task_of(db, call_id))

    async def finish() -> None:
        async with db.transaction() as session:
            await tasks.finish(session, task)

    async with db.transaction() as session:
        await tasks.lock_call(session, call_id)
        finishing = asyncio.create_task(finish())
        await is_waiting_for_a_lock(context)
        await session.execute(delete(Task).where(Task.id == task.id))
    with pytest.raises(LeaseLost):
        await finishing


async def test_a_task_that_is_postponed_was_not_tried(db: Database, hints: Hints, user: User) -> None:
    call_id = await new_call(db, hints, user)
    for _ in range(3):
        task = await claim(db, await task_of(db, call_id))
        assert task.attempts == 1
        async with db.transaction() as session:
            await tasks.postpone(session, task, delay=0)


async def test_one_of_many_claims_a_task(db: Database, call_id: str) -> None:
    task_id = await task_of(db, call_id)
    claimed = await asyncio.gather(*(claim_out_of_turn(db, task_id) for _ in range(20)))
    assert len([task for task in claimed if task]) == 1


async def test_a_lost_lease_rolls_back_what_was_done_under_it(db: Database, hints: Hints, call_id: str) -> None:
    task_id = await task_of(db, call_id)
    frozen = await claim(db, task_id)
    await expire_lease(db, task_id)
    second = await claim(db, task_id)
    assert second.attempts == 2
    assert not await tasks.renew(db, frozen, lease_seconds=LEASE)
    assert await tasks.renew(db, second, lease_seconds=LEASE)
    with pytest.raises(LeaseLost):
        async with db.transaction() as session:
            await session.execute(update(Call).where(Call.id == call_id).values(failure="written by the frozen one"))
            await tasks.finish(session, frozen)
    assert (await get(db, call_id)).failure is None
    async with db.transaction() as session:
        await tasks.finish(session, second)
    assert await claim_out_of_turn(db, task_id) is None, "it is gone"


async def test_a_task_that_failed_comes_back_later(db: Database, hints: Hints, call_id: str) -> None:
    task_id = await task_of(db, call_id)
    first = await claim(db, task_id)
    async with db.transaction() as session:
        await tasks.retry_later(session, first, delay=60, error="no luck")
    assert await claim_out_of_turn(db, task_id) is None, "it is not due"
    async with db.transaction() as session:
        task = await session.get_one(Task, task_id)
        assert (task.last_error, task.lease_token) == ("no luck", None)
        task.due_at = datetime.now(UTC) - timedelta(seconds=1)
    assert (await claim(db, task_id)).attempts == 2


async def test_a_task_exists_only_if_its_transaction_committed(db: Database, hints: Hints, call_id: str) -> None:
    with pytest.raises(RuntimeError):
        async with db.transaction() as session:
            await tasks.add(session, TaskKind.TRANSCRIBE, call_id)
            raise RuntimeError
    async with db.transaction() as session:
        assert not (await session.scalars(select(Task).filter_by(call_id=call_id, kind="transcribe"))).all()


async def claim_overdue(db: Database, limit: int = 10_000, overdue_seconds: float = 0.0) -> list[ClaimedTask]:
    return await tasks.claim_overdue(
        db,
        Queue.CALLS,
        limit=limit,
        overdue_seconds=overdue_seconds,
        lease_seconds=LEASE,
        kind=TaskKind.DIAL,
    )


async def test_what_is_overdue_is_claimed_by_one_worker_and_again_when_that_one_is_lost(
    db: Database, hints: Hints, user: User
) -> None:
    ids = {await task_of(db, await new_call(db, hints, user)) for _ in range(20)}
    assert not ids & {task.id for task in await claim_overdue(db, overdue_seconds=60)}, "these are not late yet"
    claimed = [task.id for some in await asyncio.gather(*(claim_overdue(db) for _ in range(5))) for task in some]
    assert ids <= set(claimed)
    assert len(claimed) == len(set(claimed)), "no two have the same one"
    assert not ids & {task.id for task in await claim_overdue(db)}
    lost = min(ids)
    await expire_lease(db, lost)
    again = {task.id: task for task in await claim_overdue(db)}
    assert ids & again.keys() == {lost}
    assert again[lost].attempts == 2


async def test_no_more_is_claimed_than_was_asked_for(db: Database, hints: Hints, user: User) -> None:
    for _ in range(5):
        await new_call(db, hints, user)
    assert len(await claim_overdue(db, limit=3)) == 3
    await claim_overdue(db)


# Dial attempts


async def claim_dial(db: Database, hints: Hints, migrated: Settings, call_id: str) -> dial_attempts.DialAttempt | None:
    async with db.transaction() as session:
        return await dial_attempts.claim_dial(
            session, call_id, migrated, providers.provider_links(migrated), track_after=3600
        )


async def test_the_dial_attempt_is_claimed_once(db: Database, hints: Hints, migrated: Settings, call_id: str) -> None:
    rights = [
        attempt
        for attempt in await asyncio.gather(*(claim_dial(db, hints, migrated, call_id) for _ in range(20)))
        if attempt
    ]
    assert len(rights) == 1
    assert (rights[0].order.customer_number, rights[0].order.agent_number) == (CUSTOMER, AGENT)
    assert (await get(db, call_id)).status == "dialing"
    assert await task_of(db, call_id, TaskKind.TRACK), "the call is tracked, even if this worker dies"


async def test_only_the_holder_of_the_right_saves_the_reference(
    db: Database, hints: Hints, migrated: Settings, call_id: str
) -> None:
    attempt = await claim_dial(db, hints, migrated, call_id)
    assert attempt
    forged = dial_attempts.DialAttempt(attempt.order, uuid4(), 0)
    async with db.transaction() as session:
        await dial_attempts.save_reference(session, forged, Accepted("not mine"))
    assert (await get(db, call_id)).provider_reference is None
    async with db.transaction() as session:
        await dial_attempts.save_reference(session, attempt, Accepted("mine"))
    assert (await get(db, call_id)).provider_reference == "mine"


# Events


def event(status: CallStatus, key: str | None = None, **more: object) -> CallEvent:
    return CallEvent(key or status.value, status, datetime.now(UTC), **more)  # type: ignore[arg-type]


async def apply(db: Database, hints: Hints, call_id: str, *events: CallEvent) -> CallStatus | None:
    async with db.transaction() as session:
        return await calls.apply_events(session, call_id, events, max_call_seconds=3600)


async def keys_of(db: Database, call_id: str) -> list[str]:
    async with db.transaction() as session:
        return list(
            await session.scalars(select(CallEventRow.key).filter_by(call_id=call_id).order_by(CallEventRow.id))
        )


async def test_reports_that_come_twice_late_or_in_parallel_change_nothing(
    db: Database, hints: Hints, migrated: Settings, call_id: str
) -> None:
    await claim_dial(db, hints, migrated, call_id)
    ringing = event(CallStatus.RINGING, "agent:ringing", leg=Leg.AGENT)
    answered = event(CallStatus.IN_PROGRESS, "answered")
    ended = event(CallStatus.COMPLETED, "ended", hangup_cause="normal_clearing", has_recording=True)
    await asyncio.gather(*(apply(db, hints, call_id, ringing, answered, ended) for _ in range(10)))
    await apply(db, hints, call_id, event(CallStatus.BUSY, "late"), ringing)
    assert await keys_of(db, call_id) == ["queued", "dialing", "agent:ringing", "answered", "ended"]
    call = await get(db, call_id)
    assert (call.status, call.hangup_cause) == ("completed", "normal_clearing")
    assert call.answered_at == answered.at
    assert call.ended_at == ended.at
    assert await task_of(db, call_id, TaskKind.FETCH_RECORDING)


async def test_an_answer_that_was_noticed_late_says_nothing_of_when_the_talk_began(
    db: Database, hints: Hints, migrated: Settings, call_id: str
) -> None:
    await claim_dial(db, hints, migrated, call_id)
    dialed = event(CallStatus.RINGING, CUSTOMER_DIALED, leg=Leg.CUSTOMER)
    noticed = event(CallStatus.IN_PROGRESS, "answered", late=True)
    seen = event(CallStatus.IN_PROGRESS, "answered")
    ended = event(CallStatus.COMPLETED, "ended", has_recording=True)

    async def talk() -> Talk | None:
        async with db.transaction() as session:
            return await call_lookups.find_talk(session, call_id)

    await apply(db, hints, call_id, dialed, noticed)
    await apply(db, hints, call_id, ended)
    assert await talk() is None
    await apply(db, hints, call_id, seen)
    assert await talk() == Talk((seen.at - dialed.at).total_seconds(), (ended.at - seen.at).total_seconds())
    assert (await get(db, call_id)).answered_at == noticed.at, "as the client has received it"


async def test_an_answer_that_was_noticed_late_gets_its_true_time(
    db: Database, hints: Hints, migrated: Settings, call_id: str
) -> None:
    await claim_dial(db, hints, migrated, call_id)
    seen = event(CallStatus.IN_PROGRESS, "answered")
    await apply(db, hints, call_id, event(CallStatus.IN_PROGRESS, "answered", late=True))
    await apply(db, hints, call_id, seen)
    await apply(db, hints, call_id, event(CallStatus.IN_PROGRESS, "answered", late=True))
    assert (await get(db, call_id)).answered_at == seen.at


async def test_an_end_without_a_recording_ends_the_transcript(
    db: Database, hints: Hints, migrated: Settings, call_id: str
) -> None:
    await claim_dial(db, hints, migrated, call_id)
    await apply(db, hints, call_id, event(CallStatus.BUSY))
    async with db.transaction() as session:
        transcript = (await session.scalars(select(TranscriptRow).filter_by(call_id=call_id))).one()
        assert (transcript.status, transcript.failure) == ("failed", "The call was not answered: the line was busy")


async def test_an_event_of_no_call_of_ours_is_dropped(db: Database, hints: Hints) -> None:
    assert await apply(db, hints, "call_0000000000000000", event(CallStatus.BUSY)) is None


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(list(CallStatus)), max_size=8))
async def test_whatever_is_reported_a_call_only_moves_legally(
    db: Database, hints: Hints, migrated: Settings, user: User, reported: list[CallStatus]
) -> None:
    """`apply_events` on the database against the table of moves, with any sequence of events."""
    call_id = await new_call(db, hints, user)
    await claim_dial(db, hints, migrated, call_id)
    expected = CallStatus.DIALING
    for number, status in enumerate(reported):
        now = await apply(db, hints, call_id, event(status, key=f"report {number}"))
        if may_move(expected, status, Mover.EVENT):
            expected = status
        assert now == expected
    async with db.transaction() as session:
        written = await session.scalars(select(CallEventRow.status).filter_by(call_id=call_id))
        assert len([status for status in written if status in TERMINAL]) <= 1
