"""Callbacks, sent by a worker's tasks to a real HTTP server."""

import asyncio
import json
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import delete, func, select, update
from standardwebhooks.webhooks import Webhook

from app import accounts, callbacks, calls, recordings, tasks, transcripts
from app.calls import NewCall
from app.models import Call, Delivery, Task, User
from app.outbound import Outbound
from app.storage import Stored
from app.telephony.base import CallEvent, CallStatus
from app.transcription.base import Digest, Transcription, Turn
from tests.integration.receiver import Receiver, listening
from worker.context import Context
from worker.runner import run_task


async def new_call(context: Context, user: User, url: str, *, transcript: bool = True) -> str:
    async with context.db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    order = NewCall("919999999999", "918888888888", callback_url=url, transcript=transcript)
    return (await calls.create_call(context.db, context.hints, claims, order)).id


async def end(context: Context, call_id: str, status: CallStatus, *, recording: bool = False) -> None:
    async with context.db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="ringing"))
    event = CallEvent("ended", status, datetime.now(UTC), has_recording=recording)
    async with tasks.transaction(context.db, context.hints) as session:
        await calls.apply_events(session, call_id, [event], max_call_seconds=60)


async def save_transcript(context: Context, call_id: str) -> None:
    turns = (Turn("agent", "Hello?", 0.0, 0.5), Turn("customer", "Yes.", 1.0, 1.5))
    made = Transcription(turns, Digest("They talked", "Interested"), "en", 2.0)
    async with tasks.transaction(context.db, context.hints) as session:
        await transcripts.save(session, call_id, made, engine="a test's")


async def save_recording(context: Context, call_id: str) -> None:
    async with tasks.transaction(context.db, context.hints) as session:
        stored = Stored(recordings.storage_key(call_id, "audio/wav"), 3, "ab")
        await recordings.save(session, call_id, stored, "audio/wav")


async def send_due(context: Context, *call_ids: str, at_once: int = 50) -> int:
    """Let time pass until the next attempt, and let a worker make it. Returns how many tasks there were."""
    async with context.db.transaction() as session:
        past = func.now() - timedelta(seconds=1)
        of_these = Delivery.call_id.in_(call_ids)
        await session.execute(
            update(Delivery).where(of_these, Delivery.status == "pending").values(next_attempt_at=past)
        )
        due = list(
            await session.scalars(
                update(Task)
                .where(Task.call_id.in_(call_ids), Task.kind == "deliver")
                .values(due_at=past)
                .returning(Task.id)
            )
        )
    hands = asyncio.Semaphore(at_once)

    async def one(task_id: int) -> None:
        async with hands:
            await run_task(context, task_id)

    await asyncio.gather(*(one(task_id) for task_id in due))
    return len(due)


async def send_all(context: Context, *call_ids: str) -> None:
    for _ in range(40):
        if not await send_due(context, *call_ids):
            return
    raise AssertionError("they never end")


async def deliveries(context: Context, call_id: str) -> list[Delivery]:
    async with context.db.transaction() as session:
        return list(await session.scalars(select(Delivery).filter_by(call_id=call_id).order_by(Delivery.id)))


async def secrets_of(context: Context, user: User) -> list[str]:
    async with context.db.transaction() as session:
        return await callbacks.valid_secrets(session, user.id)


def events(receiver: Receiver) -> list[str]:
    return [json.loads(heard.body)["event"] for heard in receiver.heard]


async def test_a_call_is_told_from_its_end_to_its_transcript(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        assert await deliveries(context, call_id) == []
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await save_recording(context, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.ready"]
    answered, ready = (json.loads(heard.body) for heard in receiver.heard)
    assert list(answered) == ["status_code", "message", "error", "event", "data"]
    assert list(answered["data"]) == [
        "call_id",
        "transcript_status",
        "customer_number",
        "agent_number",
        "duration",
        "recording",
        "transcript",
        "hangup_cause",
    ]
    assert answered["data"]["customer_number"] == "xxxxx9999999"
    assert answered["data"]["recording"] == "pending"
    assert ready["data"]["recording"].startswith(f"http://127.0.0.1:8000/api/recordings/{call_id}?")
    assert list(ready["data"]["transcript"]) == [
        "transcript_id",
        "summary",
        "call_outcome",
        "history",
        "createdAt",
        "updatedAt",
    ]
    (secret,) = await secrets_of(context, user)
    for heard in receiver.heard:
        Webhook(secret).verify(heard.body, heard.headers)
        assert heard.headers["content-type"] == "application/json"
    assert [row.status for row in await deliveries(context, call_id)] == ["delivered", "delivered"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (CallStatus.BUSY, "call.not_answered"),
        (CallStatus.NO_ANSWER, "call.not_answered"),
        (CallStatus.CANCELED, "call.not_answered"),
        (CallStatus.FAILED, "call.failed"),
        (CallStatus.TIMED_OUT, "call.temporaryfailed"),
        (CallStatus.AFTER_HOURS, "call.completed"),
    ],
)
async def test_every_end_is_told(context: Context, user: User, status: CallStatus, told: str) -> None:
    async with listening(Receiver()) as receiver:
        one = await new_call(context, user, receiver.url)
        other = await new_call(context, user, receiver.url, transcript=False)
        await end(context, one, status)
        await send_all(context, one)
        assert events(receiver) == [told, "transcript.failed"]
        failed = json.loads(receiver.heard[1].body)
        assert failed["status_code"] == 500
        assert failed["error"] == failed["data"]["error"]
        assert failed["error"]
        receiver.heard.clear()
        await end(context, other, status)
        await send_all(context, other)
        assert events(receiver) == [told, "transcript.disabled"]


@pytest.mark.parametrize("stored", [True, False])
async def test_that_no_transcript_comes_is_told_with_the_recording(context: Context, user: User, stored: bool) -> None:
    """Nothing else would bring its link to a client that wants no transcript."""
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url, transcript=False)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await send_all(context, call_id)
        assert events(receiver) == ["call.answered"]
        async with tasks.transaction(context.db, context.hints) as session:
            await session.execute(delete(Task).where(Task.call_id == call_id, Task.kind == "fetch_recording"))
            if not stored:
                await recordings.give_up(session, call_id, "It is gone")
        if stored:
            await save_recording(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.disabled"]
    recording = json.loads(receiver.heard[1].body)["data"]["recording"]
    assert (recording or "").startswith("http://127.0.0.1:8000/api/recordings/") is stored


async def test_no_url_no_callbacks(context: Context, user: User) -> None:
    async with context.db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    call_id = (await calls.create_call(context.db, context.hints, claims, NewCall("919999999999", "918888888888"))).id
    await end(context, call_id, CallStatus.BUSY)
    assert await deliveries(context, call_id) == []


async def test_a_change_that_is_rolled_back_is_not_told(context: Context, user: User) -> None:
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    with pytest.raises(RuntimeError):
        async with context.db.transaction() as session:
            busy = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC))
            await calls.apply_events(session, call_id, [busy], max_call_seconds=60)
            raise RuntimeError
    assert await deliveries(context, call_id) == []


async def test_a_thousand_events_outlive_a_receiver_that_is_down(context: Context, user: User) -> None:
    """Down, then up but failing now and then: after it has taken a message, or before."""
    receiver = Receiver()
    async with listening(receiver):
        pass  # it has a port now, and is down
    ids = [await new_call(context, user, receiver.url) for _ in range(500)]
    for call_id in ids:
        await end(context, call_id, CallStatus.BUSY)
    await send_due(context, *ids)
    assert not receiver.heard

    async def moody(request: web.Request, n: int) -> web.StreamResponse:
        if n % 10 == 0:
            assert request.transport is not None
            request.transport.close()  # it has the message, and we do not learn of it
        return web.Response(status=503 if n % 7 == 0 else 200)

    receiver.answer = moody
    async with listening(receiver):
        await send_all(context, *ids)

    (secret,) = await secrets_of(context, user)
    bodies: dict[str, set[bytes]] = defaultdict(set)
    order: dict[str, list[str]] = defaultdict(list)
    for heard in receiver.heard:
        Webhook(secret).verify(heard.body, heard.headers)
        if heard.body not in bodies[heard.id]:
            told = json.loads(heard.body)
            order[told["data"]["call_id"]].append(told["event"])
        bodies[heard.id].add(heard.body)
    assert len(receiver.heard) > 1000, "some came twice"
    assert len(bodies) == 1000
    assert all(len(variants) == 1 for variants in bodies.values())
    assert order == {call_id: ["call.not_answered", "transcript.failed"] for call_id in ids}


async def test_a_slow_receiver_delays_no_other(context: Context, user: User) -> None:
    free = asyncio.Event()

    async def slowly(request: web.Request, n: int) -> web.StreamResponse:
        await free.wait()
        return web.Response()

    async with listening(Receiver(answer=slowly)) as slow, listening(Receiver()) as quick:
        held = [await new_call(context, user, slow.url) for _ in range(30)]
        other = await new_call(context, user, quick.url)
        for call_id in (*held, other):
            await end(context, call_id, CallStatus.BUSY)
        sending = asyncio.create_task(send_due(context, *held))
        while len(slow.heard) < context.settings.callback_receiver_concurrency:
            await asyncio.sleep(0.01)
        await send_all(context, other)
        assert events(quick) == ["call.not_answered", "transcript.failed"]
        assert len(slow.heard) == context.settings.callback_receiver_concurrency < len(held)
        free.set()
        await sending
        await send_all(context, *held)
        assert sorted(events(slow)) == ["call.not_answered"] * 30 + ["transcript.failed"] * 30


async def test_many_dead_receivers_delay_no_other(context: Context, user: User) -> None:
    """Together they have more callbacks than a worker has hands."""
    free = asyncio.Event()

    async def never(request: web.Request, n: int) -> web.StreamResponse:
        await free.wait()
        return web.Response()

    hands = context.settings.callback_concurrency
    each = context.settings.callback_receiver_concurrency
    patient = replace(context, settings=context.settings.model_copy(update={"callback_timeout_seconds": 600}))
    async with AsyncExitStack() as stack:
        dead = [await stack.enter_async_context(listening(Receiver(answer=never))) for _ in range(hands // each + 2)]
        quick = await stack.enter_async_context(listening(Receiver()))
        stack.callback(free.set)
        held = [await new_call(context, user, receiver.url) for receiver in dead for _ in range(each)]
        other = await new_call(context, user, quick.url)
        assert len(held) > hands
        for call_id in (*held, other):
            await end(context, call_id, CallStatus.BUSY)
        sending = asyncio.create_task(send_due(patient, *held, other, at_once=hands))
        async with asyncio.timeout(120):  # not how long it takes, but that it is not as long as the dead are waited for
            while not quick.heard:
                await asyncio.sleep(0.01)
        assert not sending.done()
        free.set()
        await sending


async def test_the_schedule(context: Context, user: User) -> None:
    async def never(request: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=500, text="no \0 room")

    async with listening(Receiver(answer=never)) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        for attempt, pause in enumerate(callbacks.SCHEDULE_SECONDS, 1):
            await send_due(context, call_id)
            first, second = await deliveries(context, call_id)
            assert (first.status, first.attempts, second.attempts) == ("pending", attempt, 0)
            assert first.last_answer == "500 no  room"
            wait = (first.next_attempt_at - datetime.now(UTC)).total_seconds()
            assert pause - 60 < wait < pause * 1.2 + 1
        await send_due(context, call_id)
        first, second = await deliveries(context, call_id)
        assert (first.status, second.status) == ("failed", "pending")


async def test_retry_after_is_heeded(context: Context, user: User) -> None:
    async def busy(request: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "900"})

    async with listening(Receiver(answer=busy)) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        await send_due(context, call_id)
    first, _ = await deliveries(context, call_id)
    assert 800 < (first.next_attempt_at - datetime.now(UTC)).total_seconds() < 901


async def test_410_stops(context: Context, user: User) -> None:
    async def gone(request: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=410)

    async with listening(Receiver(answer=gone)) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await send_all(context, call_id)
        await save_recording(context, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered"]
    assert [row.status for row in await deliveries(context, call_id)] == ["failed"]


async def test_redirects_are_not_followed(context: Context, user: User) -> None:
    async with listening(Receiver()) as target:

        async def away(request: web.Request, n: int) -> web.StreamResponse:
            raise web.HTTPFound(target.url)

        async with listening(Receiver(answer=away)) as receiver:
            call_id = await new_call(context, user, receiver.url)
            await end(context, call_id, CallStatus.BUSY)
            await send_due(context, call_id)
    assert len(receiver.heard) == 1
    assert target.heard == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "127.1", "１２７.0.0.1"],
)
async def test_this_machine_is_not_reached_unless_allowed(context: Context, user: User, host: str) -> None:
    guarded = replace(context, outbound=Outbound())
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, f"http://{host}:{receiver.port}/")
        await end(context, call_id, CallStatus.BUSY)
        await send_due(guarded, call_id)
        assert receiver.heard == []
    await guarded.outbound.aclose()
    first, _ = await deliveries(context, call_id)
    told = first.last_answer or ""
    assert "RINGBACK_OUTBOUND_NETWORKS" in told or "not a canonical IPv4 address" in told


async def test_two_secrets_sign_while_one_is_replaced(context: Context, user: User) -> None:
    (old,) = await secrets_of(context, user)
    async with context.db.transaction() as session:
        new = await callbacks.new_secret(session, user.id, overlap=timedelta(hours=1))
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        await send_due(context, call_id)
        for secret in (old, new):
            Webhook(secret).verify(receiver.heard[0].body, receiver.heard[0].headers)
        async with context.db.transaction() as session:
            await callbacks.new_secret(session, user.id)
        assert old in await secrets_of(context, user)
        assert new not in await secrets_of(context, user), "without an overlap it ends at once"


async def test_the_compatible_form(context: Context, user: User) -> None:
    async with context.db.transaction() as session:
        await session.execute(update(User).where(User.id == user.id).values(compat_callbacks=True))
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await save_recording(context, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "call.completed", "transcript.ready"]
    data: dict[str, Any] = json.loads(receiver.heard[2].body)["data"]
    assert data["recording_url"] == data["recording"]
    assert (data["summary"], data["outcome"]) == ("They talked", "Interested")
    assert data["end_time"].endswith("Z")
    assert data["transcript"]["utterances"] == [
        {"speaker": "agent", "transcript": "Hello?"},
        {"speaker": "customer", "transcript": "Yes."},
    ]


async def test_a_retried_transcript_is_told_again(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await save_recording(context, call_id)
        async with tasks.transaction(context.db, context.hints) as session:
            await transcripts.fail(session, call_id, "The engine was away")
        await transcripts.retry(context.db, context.hints, user.id, call_id)
        async with tasks.transaction(context.db, context.hints) as session:
            await transcripts.fail(session, call_id, "The engine was away")
        await transcripts.retry(context.db, context.hints, user.id, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.failed", "transcript.failed", "transcript.ready"]
    assert len({heard.id for heard in receiver.heard}) == 4


async def test_replay_sends_the_same_message(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        await send_all(context, call_id)
        first = (await deliveries(context, call_id))[0]
        async with tasks.transaction(context.db, context.hints) as session:
            await callbacks.replay(session, await session.get_one(Delivery, first.id))
        await send_all(context, call_id)
    assert len(receiver.heard) == 3
    assert (receiver.heard[0].id, receiver.heard[0].body) == (receiver.heard[2].id, receiver.heard[2].body)
