"""Calls whose legs are dialed one by one, on a real PostgreSQL: nobody is called twice, and nobody is left alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from app import calls, dial_attempts
from app.engine_models import ListenerRow, Task, TaskKind
from app.models import Call, CallEventRow
from app.providers import ENVIRONMENT
from app.telephony import base
from app.telephony.base import (
    CallEvent,
    CallStatus,
    Leg,
    ProviderEvent,
    Rejected,
    Snapshot,
    Unknown,
)
from tests.conftest import CUSTOMER
from tests.integration.call_runner import CallRunner, MakeCallRunner, ScriptedProvider, Streaming, ended, until
from worker import connect, listener, track
from worker.listener import Listener

AUDIO = Path(__file__).parents[1] / "audio"
CANCELED_BY_AGENT = CallEvent(
    "ended", CallStatus.CANCELED, datetime.now(UTC), leg=Leg.AGENT, ended_by=Leg.AGENT, detail="The agent hung up"
)


def waiting() -> CallEvent:
    return CallEvent("agent:answered", CallStatus.RINGING, datetime.now(UTC), leg=Leg.AGENT, agent_waiting=True)


def alone(*, answered: bool = False) -> Snapshot:
    """The agent is there, and no customer."""
    return Snapshot((waiting(),)) if not answered else Snapshot((waiting(), _answered()))


def _answered() -> CallEvent:
    return CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC), leg=Leg.CUSTOMER)


async def report(runner: CallRunner, *events: CallEvent) -> None:
    """As the listener does."""
    async with runner.context.db.transaction() as session:
        await calls.apply_events(session, runner.call_id, events, max_call_seconds=60)


async def timeline(runner: CallRunner) -> list[str]:
    async with runner.context.db.transaction() as session:
        return list(await session.scalars(select(CallEventRow.key).filter_by(call_id=runner.call_id)))


@pytest.fixture(autouse=True)
def nobody_waits_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "_LET_EVENTS_ARRIVE_SECONDS", 0)


@pytest.fixture
async def runner(make_runner: MakeCallRunner) -> CallRunner:
    """A call whose agent has answered, and waits."""
    runner = await make_runner(ScriptedProvider(recording=AUDIO / "call_callback.wav"))
    await runner.run("dial")
    await report(runner, waiting())
    assert await runner.open_tasks() == ["connect", "track"]
    return runner


# Connecting


async def test_the_customer_is_dialed_once(runner: CallRunner) -> None:
    await runner.run("connect")
    assert [order.customer_number for order in runner.provider.connects] == [CUSTOMER]
    await report(runner, waiting())  # the same again, from the stream and from fetching
    assert await runner.open_tasks() == ["track"]
    call = await runner.call()
    assert call.customer_dialed_at
    assert "connecting" in await timeline(runner)


async def test_one_of_many_workers_dials_the_customer(runner: CallRunner) -> None:
    async def spend() -> object:
        async with runner.context.db.transaction() as session:
            return await dial_attempts.claim_connect(
                session, runner.call_id, runner.context.settings, runner.context.provider_links
            )

    assert len([order for order in await asyncio.gather(*(spend() for _ in range(20))) if order]) == 1
    await runner.run("connect")
    assert not runner.provider.connects, "the right was spent"


@pytest.mark.parametrize("snapshot", [alone(), base.ProviderError("connection refused")])
async def test_a_refused_customer_ends_the_call(runner: CallRunner, snapshot: Snapshot | Exception) -> None:
    runner.provider.connecting = Rejected("The recording could not be started")
    runner.provider.snapshot = snapshot
    await runner.run("connect")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", "The recording could not be started")
    await runner.run("hangup")
    assert [ref.call_id for ref in runner.provider.hangups] == [runner.call_id], "the agent is let go"


@pytest.mark.parametrize("snapshot", [None, Snapshot((CANCELED_BY_AGENT,))])
async def test_what_the_agent_did_explains_a_refusal_better(runner: CallRunner, snapshot: Snapshot | None) -> None:
    """However long the event of it takes."""
    runner.provider.connecting = Rejected("The agent's leg was gone")
    runner.provider.snapshot = snapshot
    await runner.run("connect")
    assert (await runner.call()).status == "ringing"
    assert await runner.open_tasks() == ["track"]
    await report(runner, CANCELED_BY_AGENT)
    call = await runner.call()
    assert (call.status, call.failure, call.ended_by) == ("canceled", "The agent hung up", "agent")


async def test_a_refusal_whose_reason_nobody_saw_ends_the_call(runner: CallRunner) -> None:
    """The agent's leg is gone, and the event of it was missed."""
    runner.provider.connecting = Rejected("The agent's leg was gone")
    await runner.run("connect")
    async with runner.context.db.transaction() as session:
        (await session.get_one(Call, runner.call_id)).dialed_at = datetime.now(UTC) - timedelta(seconds=60)
    await runner.run("track")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", track._LOST)


async def test_a_lost_answer_to_connect_is_asked_about(runner: CallRunner) -> None:
    runner.provider.connecting = Unknown("timed out")
    await runner.run("connect")
    runner.provider.snapshot = ended()
    await runner.run("track")
    assert (await runner.call()).status == "completed"
    assert len(runner.provider.connects) == 1


async def test_a_worker_that_was_frozen_connects_nobody(runner: CallRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(connect, "monotonic", lambda: next(clock))
    await runner.run("connect")
    assert not runner.provider.connects
    runner.provider.snapshot = alone()
    await runner.run("track")
    assert (await runner.call()).status == "ringing", "it may be on its way"
    await runner.age(60)
    await runner.run("track")
    call = await runner.call()
    assert call.status == "failed"
    assert "no longer knows" in (call.failure or "")


# Cancelling


async def test_a_canceled_call_is_never_dialed(make_runner: MakeCallRunner) -> None:
    runner = await make_runner()
    async with runner.context.db.transaction() as session:
        assert await runner.cancel(session) == "canceled"
    await runner.run("dial")
    assert not runner.provider.orders
    await runner.run("hangup")
    assert await runner.open_tasks() == []


async def test_a_canceled_call_connects_nobody(runner: CallRunner) -> None:
    async with runner.context.db.transaction() as session:
        await runner.cancel(session)
    await runner.run("connect")
    assert not runner.provider.connects
    await runner.run("hangup")
    assert runner.provider.hangups


async def test_a_call_that_is_canceled_while_it_is_dialed_is_hung_up(make_runner: MakeCallRunner) -> None:
    runner = await make_runner()
    async with runner.context.db.transaction() as session:
        right = await dial_attempts.claim_dial(
            session, runner.call_id, runner.context.settings, runner.context.provider_links, track_after=60
        )
        assert right
    async with runner.context.db.transaction() as session:
        await runner.cancel(session)
    await runner.run("hangup")
    async with runner.context.db.transaction() as session:
        again = await session.scalar(
            select(Task.due_at > func.now()).filter_by(call_id=runner.call_id, kind=TaskKind.HANGUP)
        )
    assert again, "the request may still be on its way, and make a leg that nobody wants"
    async with runner.context.db.transaction() as session:
        assert not await dial_attempts.save_reference(session, right, runner.provider.placing), "it is to be hung up"


# Back to the queue


async def test_a_call_that_was_surely_not_dialed_waits_in_the_queue(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(placing=Rejected("Asterisk cannot be reached", retry_after=2.0)))
    await runner.run("dial")
    call = await runner.call()
    assert (call.status, call.dial_token, call.dialed_at) == ("queued", None, None)
    assert await runner.open_tasks() == ["dial"]
    runner.provider.placing = ScriptedProvider().placing
    await runner.run("dial")
    assert (await runner.call()).status == "dialing"
    assert len(runner.provider.orders) == 2
    assert await runner.open_tasks() == ["track"]


async def test_nobody_waits_for_a_telephony_system_for_ever(make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider(placing=Rejected("Asterisk cannot be reached", retry_after=2.0)))
    async with runner.context.db.transaction() as session:
        call = await session.get_one(Call, runner.call_id)
        call.created_at -= timedelta(seconds=runner.context.settings.queue_seconds - 1)
    await runner.run("dial")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", "Asterisk cannot be reached")


# What was missed


async def test_an_agent_who_is_left_alone_is_let_go(runner: CallRunner) -> None:
    """The customer left while no worker listened."""
    await runner.run("connect")
    await report(runner, _answered())
    runner.provider.snapshot = alone(answered=True)
    await runner.run("track")
    call = await runner.call()
    assert (call.status, call.ended_by) == ("completed", "customer")
    assert await runner.open_tasks() == ["fetch_recording"], "what was said is used"


async def test_a_call_that_is_gone_has_ended(runner: CallRunner) -> None:
    await runner.run("connect")
    await report(runner, _answered())
    await runner.run("track")
    call = await runner.call()
    assert (call.status, call.failure) == ("completed", "The end itself was not seen")


# Hangup


async def test_a_recording_is_discarded_once_it_is_stored_and_not_before(runner: CallRunner) -> None:
    await runner.run("connect")
    await report(runner, *ended().events)
    await runner.age(60)
    await runner.run("hangup")
    assert not runner.provider.discarded
    await runner.run("fetch_recording")
    await runner.run("hangup")
    assert [ref.call_id for ref in runner.provider.discarded] == [runner.call_id]


# Listening


async def test_one_listens_and_another_takes_over(make_runner: MakeCallRunner) -> None:
    assert listener.LEASE_SECONDS + 2 * listener._BEAT_SECONDS <= 5
    provider = Streaming()
    runner = await make_runner(provider)
    await runner.run("dial")
    first, second = Listener(runner.context, ENVIRONMENT, uuid4()), Listener(runner.context, ENVIRONMENT, uuid4())

    async def streams(number: int) -> bool:
        return len(provider.streams) == number

    leading = asyncio.create_task(first.run())
    await until(lambda: streams(1))
    standing_by = asyncio.create_task(second.run())
    try:
        provider.streams[0].put_nowait(ProviderEvent(runner.call_id, waiting()))

        async def connects() -> bool:
            return "connect" in await runner.open_tasks()

        await until(connects)
        assert len(provider.streams) == 1, "the other one waits"

        leading.cancel()  # and says nothing, as if it were killed
        await until(lambda: streams(2))
        provider.streams[1].put_nowait(ProviderEvent(runner.call_id, CANCELED_BY_AGENT))

        async def is_over() -> bool:
            return (await runner.call()).status == "canceled"

        await until(is_over)
        async with runner.context.db.transaction() as session:
            row = (await session.scalars(select(ListenerRow).filter_by(provider=ENVIRONMENT))).one()
            assert row.worker_id == second._worker_id
    finally:
        for running in (leading, standing_by):
            running.cancel()
        await asyncio.gather(leading, standing_by, return_exceptions=True)
        await second.release()


async def test_a_stream_that_is_cut_is_had_again_and_every_live_call_is_looked_at(make_runner: MakeCallRunner) -> None:
    provider = Streaming()
    runner = await make_runner(provider)
    await runner.run("dial")
    async with runner.context.db.transaction() as session:
        task = (await session.scalars(select(Task).filter_by(call_id=runner.call_id, kind=TaskKind.TRACK))).one()
        task.due_at += timedelta(hours=1)

    async def is_due() -> bool:
        async with runner.context.db.transaction() as session:
            return bool(await session.scalar(select(Task.due_at <= func.now()).where(Task.id == task.id)))

    assert not await is_due()
    listening = Listener(runner.context, ENVIRONMENT, uuid4())
    running = asyncio.create_task(listening.run())
    try:
        await until(is_due)
        provider.streams[0].put_nowait(None)

        async def is_back() -> bool:
            return len(provider.streams) == 2

        await until(is_back)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await listening.release()
