"""Calls whose legs are dialled one by one, on a real PostgreSQL: nobody is called twice, and nobody left alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from app import calls, dialing, tasks
from app.models import Call, CallEventRow, Task, TaskKind
from app.models import Listener as Row
from app.telephony.base import (
    CallEvent,
    CallOrder,
    CallStatus,
    Capabilities,
    Leg,
    ProviderError,
    Rejected,
    Report,
    Snapshot,
    Unknown,
)
from tests.conftest import CUSTOMER
from tests.integration.house import House, MakeHouse, Scripted, ended
from worker import connect, listener, track
from worker.listener import Listener

AUDIO = Path(__file__).parents[1] / "audio"
CANCELED_BY_AGENT = CallEvent(
    "ended", CallStatus.CANCELED, datetime.now(UTC), leg=Leg.AGENT, ended_by=Leg.AGENT, detail="The agent hung up"
)


def waiting() -> CallEvent:
    return CallEvent("agent:answered", CallStatus.RINGING, datetime.now(UTC), leg=Leg.AGENT, agent_waiting=True)


def alone(*, answered: bool = False) -> Snapshot:
    """The agent is there and no customer."""
    return Snapshot((waiting(),)) if not answered else Snapshot((waiting(), _answered()))


def _answered() -> CallEvent:
    return CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC), leg=Leg.CUSTOMER)


async def report(house: House, *events: CallEvent) -> None:
    """As the listener does."""
    async with tasks.transaction(house.context.db, house.context.hints) as session:
        await calls.apply_events(session, house.call_id, events, max_call_seconds=60)


async def timeline(house: House) -> list[str]:
    async with house.context.db.transaction() as session:
        return list(await session.scalars(select(CallEventRow.key).filter_by(call_id=house.call_id)))


@pytest.fixture(autouse=True)
def nobody_waits_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_LET_EVENTS_ARRIVE_SECONDS", 0)
    monkeypatch.setattr(track, "_LET_EVENTS_ARRIVE_SECONDS", 0)


@pytest.fixture
async def house(house_with: MakeHouse) -> House:
    """The agent has answered, and waits."""
    house = await house_with(Scripted(recording=AUDIO / "call_callback.wav"))
    await house.run("dial")
    await report(house, waiting())
    assert await house.open_tasks() == ["connect", "track"]
    return house


# Connecting


async def test_the_customer_is_dialled_once(house: House) -> None:
    await house.run("connect")
    assert [order.customer_number for order in house.provider.connects] == [CUSTOMER]
    await report(house, waiting())  # the same again, from the stream and from asking
    assert await house.open_tasks() == ["track"]
    call = await house.call()
    assert call.customer_dialed_at
    assert "connecting" in await timeline(house)


async def test_one_of_many_workers_dials_the_customer(house: House) -> None:
    async def spend() -> object:
        async with house.context.db.transaction() as session:
            return await dialing.claim_for_connecting(session, house.call_id, house.context.settings)

    assert len([order for order in await asyncio.gather(*(spend() for _ in range(20))) if order]) == 1
    await house.run("connect")
    assert not house.provider.connects, "the right was spent"


async def test_a_refused_customer_ends_the_call(house: House) -> None:
    house.provider.connecting = Rejected("The recording could not be started")
    await house.run("connect")
    call = await house.call()
    assert (call.status, call.failure) == ("failed", "The recording could not be started")
    await house.run("hangup")
    assert [ref.call_id for ref in house.provider.hangups] == [house.call_id], "the agent is let go"


async def test_what_the_agent_did_explains_a_refusal_better(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(order: CallOrder) -> Rejected:
        await report(house, CANCELED_BY_AGENT)
        return Rejected("The agent's leg was gone")

    monkeypatch.setattr(house.provider, "connect", gone)
    await house.run("connect")
    call = await house.call()
    assert (call.status, call.failure, call.ended_by) == ("canceled", "The agent hung up", "agent")


async def test_a_lost_answer_to_connect_is_asked_about(house: House) -> None:
    house.provider.connecting = Unknown("timed out")
    await house.run("connect")
    house.provider.snapshot = ended()
    await house.run("track")
    assert (await house.call()).status == "completed"
    assert len(house.provider.connects) == 1


async def test_a_worker_that_was_frozen_connects_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(connect, "monotonic", lambda: next(clock))
    await house.run("connect")
    assert not house.provider.connects
    house.provider.snapshot = alone()
    await house.run("track")
    assert (await house.call()).status == "ringing", "it may be on its way"
    await house.age(60)
    await house.run("track")
    call = await house.call()
    assert call.status == "failed"
    assert "no longer knows" in (call.failure or "")


# Cancelling


async def test_a_canceled_call_is_never_dialled(house_with: MakeHouse) -> None:
    house = await house_with()
    async with tasks.transaction(house.context.db, house.context.hints) as session:
        assert await calls.cancel(session, house.call_id) == "canceled"
    await house.run("dial")
    assert not house.provider.orders
    await house.run("hangup")
    assert await house.open_tasks() == []


async def test_a_canceled_call_connects_nobody(house: House) -> None:
    async with tasks.transaction(house.context.db, house.context.hints) as session:
        await calls.cancel(session, house.call_id)
    await house.run("connect")
    assert not house.provider.connects
    await house.run("hangup")
    assert house.provider.hangups


async def test_a_call_that_is_canceled_while_it_is_dialled_is_hung_up(house_with: MakeHouse) -> None:
    house = await house_with()
    async with tasks.transaction(house.context.db, house.context.hints) as session:
        right = await dialing.claim_for_dialing(session, house.call_id, house.context.settings, track_after=60)
        assert right
    async with tasks.transaction(house.context.db, house.context.hints) as session:
        await calls.cancel(session, house.call_id)
    await house.run("hangup")
    async with house.context.db.transaction() as session:
        again = await session.scalar(
            select(Task.due_at > func.now()).filter_by(call_id=house.call_id, kind=TaskKind.HANGUP)
        )
    assert again, "the request may still be on its way, and make a leg that nobody wants"
    async with house.context.db.transaction() as session:
        assert not await dialing.save_reference(session, right, house.provider.placing), "it is to be hung up"


# Back to the queue


async def test_a_call_that_was_surely_not_dialled_waits_in_the_queue(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(placing=Rejected("Asterisk cannot be reached", retry_after=2.0)))
    await house.run("dial")
    call = await house.call()
    assert (call.status, call.dial_token, call.dialed_at) == ("queued", None, None)
    assert await house.open_tasks() == ["dial"]
    house.provider.placing = Scripted().placing
    await house.run("dial")
    assert (await house.call()).status == "dialing"
    assert len(house.provider.orders) == 2
    assert await house.open_tasks() == ["track"]


async def test_nobody_waits_for_a_telephony_system_for_ever(house_with: MakeHouse) -> None:
    house = await house_with(Scripted(placing=Rejected("Asterisk cannot be reached", retry_after=2.0)))
    async with house.context.db.transaction() as session:
        call = await session.get_one(Call, house.call_id)
        call.created_at -= timedelta(seconds=house.context.settings.dial_patience_seconds)
    await house.run("dial")
    call = await house.call()
    assert (call.status, call.failure) == ("failed", "Asterisk cannot be reached")


# What was missed


async def test_an_agent_who_is_left_alone_is_let_go(house: House) -> None:
    """The customer left while nobody listened."""
    await house.run("connect")
    await report(house, _answered())
    house.provider.snapshot = alone(answered=True)
    await house.run("track")
    call = await house.call()
    assert (call.status, call.ended_by) == ("completed", "customer")
    assert await house.open_tasks() == ["fetch_recording"], "what was said is used"


async def test_a_call_that_is_gone_has_ended(house: House) -> None:
    await house.run("connect")
    await report(house, _answered())
    await house.run("track")
    call = await house.call()
    assert (call.status, call.failure) == ("completed", "The end itself was not seen")


# Clearing up


async def test_a_recording_is_discarded_once_it_is_stored_and_not_before(house: House) -> None:
    await house.run("connect")
    await report(house, *ended().events)
    await house.age(60)
    await house.run("hangup")
    assert not house.provider.discarded
    await house.run("fetch_recording")
    await house.run("hangup")
    assert [ref.call_id for ref in house.provider.discarded] == [house.call_id]


# Listening


@dataclass
class Streaming(Scripted):
    """A provider with a stream."""

    capabilities = Capabilities(hangup=True, stream=True)
    name: str = field(default_factory=lambda: f"streaming-{uuid4().hex}")
    streams: list["asyncio.Queue[Report | None]"] = field(default_factory=list)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Report]]:
        stream: asyncio.Queue[Report | None] = asyncio.Queue()
        self.streams.append(stream)

        async def reports() -> AsyncIterator[Report]:
            while (report := await stream.get()) is not None:
                yield report
            raise ProviderError("cut")

        yield reports()


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.02)


async def test_one_listens_and_another_takes_over(house_with: MakeHouse) -> None:
    assert listener.LEASE_SECONDS + 2 * listener._BEAT_SECONDS <= 5
    provider = Streaming()
    house = await house_with(provider)
    await house.run("dial")
    first, second = Listener(house.context, uuid4()), Listener(house.context, uuid4())

    async def streams(number: int) -> bool:
        return len(provider.streams) == number

    leading = asyncio.create_task(first.run())
    await until(lambda: streams(1))
    standing_by = asyncio.create_task(second.run())
    try:
        provider.streams[0].put_nowait(Report(house.call_id, waiting()))

        async def connects() -> bool:
            return "connect" in await house.open_tasks()

        await until(connects)
        assert len(provider.streams) == 1, "the other one waits"

        leading.cancel()  # and says nothing, as one that is killed
        await until(lambda: streams(2))
        provider.streams[1].put_nowait(Report(house.call_id, CANCELED_BY_AGENT))

        async def is_over() -> bool:
            return (await house.call()).status == "canceled"

        await until(is_over)
        async with house.context.db.transaction() as session:
            row = (await session.scalars(select(Row).filter_by(provider=provider.name))).one()
            assert row.worker_id == second._worker_id
    finally:
        for running in (leading, standing_by):
            running.cancel()
        await asyncio.gather(leading, standing_by, return_exceptions=True)
        await second.leave()


async def test_a_stream_that_is_cut_is_had_again_and_every_live_call_is_looked_at(house_with: MakeHouse) -> None:
    provider = Streaming()
    house = await house_with(provider)
    await house.run("dial")
    async with house.context.db.transaction() as session:
        task = (await session.scalars(select(Task).filter_by(call_id=house.call_id, kind=TaskKind.TRACK))).one()
        task.due_at += timedelta(hours=1)

    async def is_due() -> bool:
        async with house.context.db.transaction() as session:
            return bool(await session.scalar(select(Task.due_at <= func.now()).where(Task.id == task.id)))

    assert not await is_due()
    listening = Listener(house.context, uuid4())
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
        await listening.leave()
