"""Callbacks, sent by a worker's tasks to a real HTTP server."""

import asyncio
import json
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import time

import pytest
from aiohttp import web
from sqlalchemy import func, select, update
from standardwebhooks.webhooks import Webhook

from app import callbacks, tasks, transcripts
from app.engine_models import Queue, Task, TaskKind
from app.hints import arq_pool, arq_queue
from app.models import Delivery, User
from app.outbound import Outbound, OutboundError
from app.telephony.base import CallStatus
from tests.integration.call_runner import claim_out_of_turn, is_waiting_for_a_lock
from tests.integration.callback_calls import (
    deliveries,
    end,
    events,
    new_call,
    save_recording,
    save_transcript,
    secrets_of,
    send_all,
    send_due,
)
from tests.integration.receiver import Receiver, listening
from worker.context import Context
from worker.host_limiter import HostLimiter
from worker.runner import HANDLERS


async def test_hundreds_of_events_outlive_a_receiver_that_is_down(context: Context, user: User) -> None:
    """The receiver is down, and then fails sometimes, before or after it has accepted a message."""
    receiver = Receiver()
    async with listening(receiver):
        pass  # it has a port now, and is down
    ids = [await new_call(context, user, receiver.url) for _ in range(100)]
    for call_id in ids:
        await end(context, call_id, CallStatus.BUSY)
    await send_due(context, *ids)
    assert not receiver.received

    async def fails_sometimes(request: web.Request, n: int) -> web.StreamResponse:
        if n % 10 == 0:
            assert request.transport is not None
            request.transport.close()  # it has the message, and the worker does not learn of it
        return web.Response(status=503 if n % 7 == 0 else 200)

    receiver.answer = fails_sometimes
    async with listening(receiver):
        await send_all(context, *ids)

    (secret,) = await secrets_of(context, user)
    bodies: dict[str, set[bytes]] = defaultdict(set)
    order: dict[str, list[str]] = defaultdict(list)
    for callback in receiver.received:
        Webhook(secret).verify(callback.body, callback.headers)
        if callback.body not in bodies[callback.id]:
            message = json.loads(callback.body)
            order[message["data"]["call_id"]].append(message["event"])
        bodies[callback.id].add(callback.body)
    assert len(receiver.received) > 200, "some came twice"
    assert len(bodies) == 200
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
        while len(slow.received) < context.settings.callback_receiver_concurrency:
            await asyncio.sleep(0.01)
        await send_all(context, other)
        assert events(quick) == ["call.not_answered", "transcript.failed"]
        assert len(slow.received) == context.settings.callback_receiver_concurrency < len(held)
        free.set()
        await sending
        await send_all(context, *held)
        assert sorted(events(slow)) == ["call.not_answered"] * 30 + ["transcript.failed"] * 30


async def test_many_dead_receivers_delay_no_other(context: Context, user: User) -> None:
    """Together they have more callbacks than a worker sends at once."""
    free = asyncio.Event()

    async def never(request: web.Request, n: int) -> web.StreamResponse:
        await free.wait()
        return web.Response()

    limit, each = 40, 4
    settings = context.settings.model_copy(update={"callback_timeout_seconds": 600})
    patient = replace(context, settings=settings, receivers=HostLimiter(limit, each=each))
    async with AsyncExitStack() as stack:
        dead = [await stack.enter_async_context(listening(Receiver(answer=never))) for _ in range(limit // each + 2)]
        quick = await stack.enter_async_context(listening(Receiver()))
        stack.callback(free.set)
        held = [await new_call(context, user, receiver.url) for receiver in dead for _ in range(each)]
        other = await new_call(context, user, quick.url)
        assert len(held) > limit
        for call_id in (*held, other):
            await end(context, call_id, CallStatus.BUSY)
        sending = asyncio.create_task(send_due(patient, *held, other, at_once=limit))
        async with asyncio.timeout(120):  # checks only that it is faster than waiting for the dead receivers
            while not quick.received:
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


async def test_a_signed_address_is_kept_byte_for_byte_and_a_redirect_is_not_followed(
    context: Context, user: User
) -> None:
    signed, asked = "/hook%2F1?sig=a%2Fb%2B+c%20d%3D&empty=", []
    async with listening(Receiver()) as target:

        async def away(request: web.Request, n: int) -> web.StreamResponse:
            asked.append(request.raw_path)
            raise web.HTTPFound(target.url)

        async with listening(Receiver(answer=away)) as receiver:
            call_id = await new_call(context, user, f"http://127.0.0.1:{receiver.port}{signed}")
            await end(context, call_id, CallStatus.BUSY)
            await send_due(context, call_id)
    assert asked == [signed]
    assert target.received == []
    first, _ = await deliveries(context, call_id)
    assert (first.status, first.attempts) == ("pending", 1)
    assert (first.last_answer or "").startswith("302 (callbacks do not follow redirects)")


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
        assert receiver.received == []
    await guarded.outbound.aclose()
    first, _ = await deliveries(context, call_id)
    message = first.last_answer or ""
    assert "RINGBACK_OUTBOUND_NETWORKS" in message or "not a canonical IPv4 address" in message


async def test_two_secrets_sign_while_one_is_replaced(context: Context, user: User) -> None:
    (old,) = await secrets_of(context, user)
    async with context.db.transaction() as session:
        new = await callbacks.create_secret(session, user.id, overlap=timedelta(hours=1))
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        await send_due(context, call_id)
        for secret in (old, new):
            Webhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)
        async with context.db.transaction() as session:
            await callbacks.create_secret(session, user.id)
        assert old in await secrets_of(context, user)
        assert new not in await secrets_of(context, user), "without an overlap it ends at once"


async def test_replay_sends_the_same_message(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        await send_all(context, call_id)
        first = (await deliveries(context, call_id))[0]
        async with context.db.transaction() as session:
            await callbacks.replay(session, await session.get_one(Delivery, first.id))
        await send_all(context, call_id)
    assert len(receiver.received) == 3
    assert (receiver.received[0].id, receiver.received[0].body) == (receiver.received[2].id, receiver.received[2].body)


async def test_a_replay_during_the_last_attempt_is_not_lost(context: Context, user: User) -> None:
    async def replayed_meanwhile(request: web.Request, n: int) -> web.StreamResponse:
        if n == len(callbacks.SCHEDULE_SECONDS) + 1:
            async with context.db.transaction() as session:
                first = (await deliveries(context, call_id))[0]
                await callbacks.replay(session, await session.get_one(Delivery, first.id))
        return web.Response(status=500)

    async with listening(Receiver(answer=replayed_meanwhile)) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.BUSY)
        for _ in range(len(callbacks.SCHEDULE_SECONDS) + 1):
            await send_due(context, call_id)
    first = (await deliveries(context, call_id))[0]
    assert (first.status, first.attempts) == ("pending", 0)


async def test_who_waits_for_a_silent_receiver_is_given_up_when_the_schedule_is_over(
    context: Context, user: User
) -> None:
    receivers = HostLimiter(10, each=1)
    own = replace(context, receivers=receivers)
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    await end(context, call_id, CallStatus.BUSY)
    with pytest.raises(OutboundError):
        async with receivers.request("127.0.0.1:1"):
            raise OutboundError("no answer")
    async with receivers.request("127.0.0.1:1"):
        for _ in range(20):
            await send_due(own, call_id)
        assert [(row.status, row.attempts) for row in await deliveries(context, call_id)] == [("pending", 0)] * 2
        async with context.db.transaction() as session:
            long_ago = func.now() - timedelta(days=2)
            await session.execute(update(Delivery).where(Delivery.call_id == call_id).values(began_at=long_ago))
        await send_due(own, call_id)
        assert (await deliveries(context, call_id))[0].status == "pending", "that one request got no answer says little"
        since = receivers._known["127.0.0.1:1"]
        assert since.silent_since is not None
        since.silent_since -= 2 * 86400
        await send_all(own, call_id)
    assert [(row.status, row.attempts) for row in await deliveries(context, call_id)] == [("failed", 0)] * 2
    async with context.db.transaction() as session:
        first = (await deliveries(context, call_id))[0]
        await callbacks.replay(session, await session.get_one(Delivery, first.id))
    async with receivers.request("127.0.0.1:1"):
        await send_due(own, call_id)
    assert (await deliveries(context, call_id))[0].status == "pending", "a new schedule began"


async def test_a_url_that_nobody_can_request_is_given_up(context: Context, user: User) -> None:
    call_id = await new_call(context, user, "http://u:[@127.0.0.1/")
    await end(context, call_id, CallStatus.BUSY)
    await send_all(context, call_id)
    assert [row.status for row in await deliveries(context, call_id)] == ["failed", "failed"]


async def test_notifying_and_delivering_do_not_deadlock(context: Context, user: User) -> None:
    """Both lock the call before its tasks."""
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    await end(context, call_id, CallStatus.COMPLETED, recording=True)
    async with context.db.transaction() as session:
        of_it = select(Task.id).where(Task.call_id == call_id, Task.kind == "deliver")
        task_id = (await session.scalars(of_it)).one()
    task = await claim_out_of_turn(context.db, task_id)
    assert task is not None
    async with context.db.transaction() as session:
        await tasks.lock_call(session, call_id)
        giving_up = asyncio.ensure_future(HANDLERS[TaskKind.DELIVER].give_up(context, task, "a test's"))
        await is_waiting_for_a_lock(context)
        await transcripts.fail(session, call_id, "There is none")
    await giving_up
    assert [row.event for row in await deliveries(context, call_id)] == ["call.answered", "transcript.failed"]


async def test_a_replay_of_what_waits_for_its_next_attempt_is_sent_at_once(context: Context, user: User) -> None:
    """Even if a hint for the later time is in the queue."""
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    await end(context, call_id, CallStatus.BUSY)
    await send_due(context, call_id)

    async def hinted_in() -> float:
        async with context.db.transaction() as session:
            task = (await session.scalars(select(Task).where(Task.call_id == call_id, Task.kind == "deliver"))).one()
        job = f"task:{task.id}:{task.attempts}"
        redis = arq_pool(context.settings.redis_url)
        try:
            while (due := await redis.zscore(arq_queue(Queue.CALLBACKS), job)) is None:
                await asyncio.sleep(0.01)
        finally:
            await redis.aclose(close_connection_pool=True)
        return float(due) / 1000 - time()

    assert await hinted_in() > 2
    async with context.db.transaction() as session:
        await callbacks.replay(session, (await deliveries(context, call_id))[0])
    async with asyncio.timeout(60):
        while await hinted_in() > 1:
            await asyncio.sleep(0.01)
