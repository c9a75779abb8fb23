"""What callbacks contain, and when they are sent."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, update
from standardwebhooks.webhooks import Webhook

from app import accounts, calls, recordings, transcripts
from app.call_state import Mover
from app.engine_models import Task
from app.models import User
from app.new_calls import NewCall
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import AGENT, CUSTOMER, creator_of
from tests.integration.callback_calls import (
    deliveries,
    end,
    events,
    new_call,
    save_recording,
    save_transcript,
    secrets_of,
    send_all,
)
from tests.integration.receiver import Receiver, listening
from worker.context import Context


async def test_callbacks_from_the_end_to_the_transcript(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        assert await deliveries(context, call_id) == []
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await save_recording(context, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.ready"]
    answered, ready = (json.loads(callback.body) for callback in receiver.received)
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
    for callback in receiver.received:
        Webhook(secret).verify(callback.body, callback.headers)
        assert callback.headers["content-type"] == "application/json"
    assert [row.status for row in await deliveries(context, call_id)] == ["delivered", "delivered"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (CallStatus.BUSY, "call.not_answered"),
        (CallStatus.NO_ANSWER, "call.not_answered"),
        (CallStatus.CANCELED, "call.not_answered"),
        (CallStatus.FAILED, "call.failed"),
        (CallStatus.TIMED_OUT, "call.temporaryfailed"),
        (CallStatus.AFTER_HOURS, "call.not_answered"),
        (CallStatus.ENDED, "call.completed"),
    ],
)
async def test_every_end_has_its_callback(context: Context, user: User, status: CallStatus, expected: str) -> None:
    async with listening(Receiver()) as receiver:
        one = await new_call(context, user, receiver.url)
        other = await new_call(context, user, receiver.url, transcript=False)
        await end(context, one, status)
        await send_all(context, one)
        assert events(receiver) == [expected, "transcript.failed"]
        failed = json.loads(receiver.received[1].body)
        assert failed["status_code"] == 500
        assert failed["error"] == failed["data"]["error"]
        assert failed["error"]
        receiver.received.clear()
        await end(context, other, status)
        await send_all(context, other)
        assert events(receiver) == [expected, "transcript.disabled"]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_disabled_transcript_is_reported_with_the_recording(context: Context, user: User, stored: bool) -> None:
    """Nothing else would bring the link to a client that ordered no transcript."""
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url, transcript=False)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await send_all(context, call_id)
        assert events(receiver) == ["call.answered"]
        async with context.db.transaction() as session:
            await session.execute(delete(Task).where(Task.call_id == call_id, Task.kind == "fetch_recording"))
            if not stored:
                await recordings.give_up(session, call_id, "It is gone")
        if stored:
            await save_recording(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.disabled"]
    recording = json.loads(receiver.received[1].body)["data"]["recording"]
    assert (recording or "").startswith("http://127.0.0.1:8000/api/recordings/") is stored


async def test_no_url_no_callbacks(context: Context, user: User) -> None:
    async with context.db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    call_id = (await creator_of(context.db, context.hints).create(claims, NewCall(CUSTOMER, AGENT))).id
    await end(context, call_id, CallStatus.BUSY)
    assert await deliveries(context, call_id) == []


async def test_a_change_that_is_rolled_back_sends_nothing(context: Context, user: User) -> None:
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    with pytest.raises(RuntimeError):
        async with context.db.transaction() as session:
            busy = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC))
            await calls.apply_events(session, call_id, [busy], max_call_seconds=60)
            raise RuntimeError
    assert await deliveries(context, call_id) == []


async def test_fields_are_added_for_a_user_who_defined_some(context: Context, user: User) -> None:
    fields = {"callback time": "tomorrow", "amount promised": None}
    async with listening(Receiver()) as receiver:
        for known in (fields, None):
            call_id = await new_call(context, user, receiver.url)
            await end(context, call_id, CallStatus.COMPLETED, recording=True)
            await save_recording(context, call_id)
            await save_transcript(context, call_id, known)
            await send_all(context, call_id)
    sent = [json.loads(message.body)["data"] for message in receiver.received]
    ready = [data["transcript"] for data in sent if data["transcript"] is not None]
    assert ready[0]["fields"] == fields
    assert set(ready[0]) - set(ready[1]) == {"fields"}


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
    data: dict[str, Any] = json.loads(receiver.received[2].body)["data"]
    assert data["recording_url"] == data["recording"]
    assert (data["summary"], data["outcome"]) == ("They talked", "Interested")
    assert data["end_time"].endswith("Z")
    assert data["transcript"]["utterances"] == [
        {"speaker": "agent", "transcript": "Hello?"},
        {"speaker": "customer", "transcript": "Yes."},
    ]


async def test_a_retried_transcript_is_reported_again(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url)
        await end(context, call_id, CallStatus.COMPLETED, recording=True)
        await save_recording(context, call_id)
        async with context.db.transaction() as session:
            await transcripts.fail(session, call_id, "The engine was away")
        await transcripts.retry(context.db, user.id, call_id)
        async with context.db.transaction() as session:
            await transcripts.fail(session, call_id, "The engine was away")
        await transcripts.retry(context.db, user.id, call_id)
        await save_transcript(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.answered", "transcript.failed", "transcript.failed", "transcript.ready"]
    assert len({callback.id for callback in receiver.received}) == 4


async def test_a_disabled_transcript_is_reported_again_with_a_late_recording(context: Context, user: User) -> None:
    async with listening(Receiver()) as receiver:
        call_id = await new_call(context, user, receiver.url, transcript=False)
        await end(context, call_id, CallStatus.TIMED_OUT)
        async with context.db.transaction() as session:
            answered = CallEvent("reported", CallStatus.COMPLETED, datetime.now(UTC), has_recording=True)
            await calls.apply_events(session, call_id, [answered], max_call_seconds=60, by=Mover.REPORT)
        await save_recording(context, call_id)
        await send_all(context, call_id)
    assert events(receiver) == ["call.temporaryfailed", "transcript.disabled", "call.answered", "transcript.disabled"]
    assert json.loads(receiver.received[3].body)["data"]["recording"].startswith("http")
