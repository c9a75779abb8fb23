"""Calls that are ordered at the same time: each gets its own answer, whatever becomes of the others."""

import asyncio
from uuid import uuid4

import pytest
from asyncpg import UniqueViolationError
from sqlalchemy import func, select

from app import accounts, call_ids, do_not_call, transcripts
from app.call_inserts import CallInsert, CallInserter, InsertedCall, insert_in
from app.db import Database
from app.engine_models import Task
from app.models import Call, CallEventRow, TranscriptRow, User
from app.numbers import PhoneNumber
from app.providers import ENVIRONMENT
from app.security import Claims
from tests.conftest import AGENT, CUSTOMER, new_user


async def login(db: Database, user: User) -> Claims:
    async with db.transaction() as session:
        return await accounts.open_login(session, user, seconds=60)


@pytest.fixture
async def claims(db: Database, user: User) -> Claims:
    return await login(db, user)


def call_of(claims: Claims, **changed: object) -> CallInsert:
    values: dict[str, object] = {
        "session_id": claims.session_id,
        "user_id": claims.user_id,
        "call_id": call_ids.new_call_id(),
        "customer_number": CUSTOMER.digits,
        "agent_number": AGENT.digits,
        "did": None,
        "did_id": None,
        "callback_url": None,
        "language": None,
        "record": True,
        "waits_for_hours": False,
        "dial_after": None,
        "traceparent": None,
        "provider": ENVIRONMENT,
        "transcript_id": transcripts.new_transcript_id(),
        "transcript_status": "pending",
    }
    return CallInsert(**{**values, **changed})  # type: ignore[arg-type]


async def insert_at_once(db: Database, *inserts: CallInsert) -> list[InsertedCall | BaseException | None]:
    """Insert the first, and meanwhile ask for all others."""
    inserter = CallInserter(db)
    return await asyncio.gather(*map(inserter.insert, inserts), return_exceptions=True)


async def stored(db: Database, *inserts: CallInsert) -> list[Call]:
    async with db.transaction() as session:
        rows = await session.scalars(select(Call).where(Call.id.in_([insert.call_id for insert in inserts])))
        return list(rows)


async def test_what_is_ordered_meanwhile_goes_together(db: Database, user: User, claims: Claims) -> None:
    claims_of_other = await login(db, await new_user(db))
    inserts = [call_of(claims), *[call_of(one) for one in (claims, claims_of_other) * 5]]
    results = await insert_at_once(db, *inserts)
    calls = {call.id: call for call in await stored(db, *inserts)}
    assert len({call.created_at for call in calls.values()}) == 2, "one transaction each"
    for insert, result in zip(inserts, results, strict=True):
        assert isinstance(result, InsertedCall)
        call = calls[insert.call_id]
        assert (call.user_id, call.status, call.provider) == (insert.user_id, "queued", ENVIRONMENT)
        async with db.transaction() as session:
            assert await session.scalar(select(Task.call_id).filter_by(id=result.task_id)) == insert.call_id
            keys = select(CallEventRow.key).filter_by(call_id=insert.call_id)
            assert list(await session.scalars(keys)) == ["queued"]
            transcript = (await session.scalars(select(TranscriptRow).filter_by(call_id=insert.call_id))).one()
            assert (transcript.id, transcript.user_id) == (insert.transcript_id, insert.user_id)


async def test_each_order_is_refused_for_its_own_reason(db: Database, user: User, claims: Claims) -> None:
    inactive = await login(db, await new_user(db, active=False))
    async with db.transaction() as session:
        await do_not_call.add(session, user.id, [PhoneNumber("919812345678")])
    good, other = call_of(claims), call_of(await login(db, await new_user(db)), customer_number="919812345678")
    inserts = [
        call_of(claims),
        good,
        call_of(claims, session_id=uuid4()),
        call_of(claims, session_id=inactive.session_id),
        call_of(inactive),
        call_of(claims, customer_number="919812345678"),
        call_of(claims, provider="drained-or-removed"),
        other,
    ]
    first, one, no_login, login_of_other, locked, listed, no_provider, not_listed = await insert_at_once(db, *inserts)
    assert no_login is None
    assert login_of_other is None
    assert locked == InsertedCall(is_active=False, is_listed=False, task_id=None)
    assert listed == InsertedCall(is_active=True, is_listed=True, task_id=None)
    assert no_provider == InsertedCall(is_active=True, is_listed=False, task_id=None)
    for accepted in (first, one, not_listed):
        assert isinstance(accepted, InsertedCall)
        assert accepted.task_id is not None
    assert {call.id for call in await stored(db, *inserts)} == {inserts[0].call_id, good.call_id, other.call_id}


async def test_an_order_that_postgresql_refuses_harms_no_other(db: Database, claims: Claims) -> None:
    first, good, late = call_of(claims), call_of(claims), call_of(claims)
    twice = call_of(claims, call_id=first.call_id)
    no_text = call_of(claims, callback_url="https://example.com/\0")
    results = await insert_at_once(db, first, twice, good, no_text, late)
    assert isinstance(results[1], UniqueViolationError)
    assert isinstance(results[3], Exception)
    assert all(isinstance(results[place], InsertedCall) for place in (0, 2, 4))
    assert len(await stored(db, first, good, late)) == 3


async def test_an_order_that_waits_for_a_lock_delays_no_other(db: Database, user: User, claims: Claims) -> None:
    others = [call_of(await login(db, await new_user(db))) for _ in range(3)]
    locked, inserter = call_of(claims), CallInserter(db)
    async with db.transaction() as session:
        await session.get_one(User, user.id, with_for_update=True)
        waiting = asyncio.create_task(inserter.insert(locked))
        await asyncio.sleep(0)  # it has asked first
        results = await asyncio.gather(*map(inserter.insert, others))
        assert all(results)
        assert not waiting.done()
    assert isinstance(await waiting, InsertedCall)


async def test_a_client_that_goes_away_takes_no_order_with_it(db: Database, claims: Claims) -> None:
    inserter, first, gone, stays = CallInserter(db), call_of(claims), call_of(claims), call_of(claims)
    asked = [asyncio.create_task(inserter.insert(call)) for call in (first, gone, stays)]
    await asyncio.sleep(0)
    asked[1].cancel()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert isinstance(results[2], InsertedCall)
    assert len(await stored(db, first, gone, stays)) == 3, "it was ordered, and may have been read"


async def test_in_a_transaction_that_is_rolled_back_nothing_is_left(db: Database, claims: Claims) -> None:
    call = call_of(claims)

    async def fail() -> None:
        async with db.transaction() as session:
            assert isinstance(await insert_in(session, call), InsertedCall)
            assert await session.scalar(select(func.count()).select_from(Task).filter_by(call_id=call.call_id)) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert not await stored(db, call)
