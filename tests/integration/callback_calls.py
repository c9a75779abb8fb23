"""Helpers for tests of callbacks: calls with a callback URL, and a worker that delivers."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update

from app import accounts, callbacks, calls, recordings, transcripts
from app.engine_models import Task
from app.models import Call, Delivery, User
from app.new_calls import NewCall
from app.storage import Stored
from app.telephony.base import CallEvent, CallStatus
from app.transcription.base import Digest, SpokenTurn, Transcription
from tests.conftest import AGENT, CUSTOMER, creator_of
from tests.integration.call_runner import run_now
from tests.integration.receiver import Receiver
from worker.context import Context


async def new_call(context: Context, user: User, url: str, *, transcript: bool = True) -> str:
    async with context.db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    order = NewCall(CUSTOMER, AGENT, callback_url=url, transcript=transcript)
    return (await creator_of(context.db, context.hints).create(claims, order)).id


async def end(context: Context, call_id: str, status: CallStatus, *, recording: bool = False) -> None:
    async with context.db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="ringing"))
    event = CallEvent("ended", status, datetime.now(UTC), has_recording=recording)
    async with context.db.transaction() as session:
        await calls.apply_events(session, call_id, [event], max_call_seconds=60)


async def save_transcript(context: Context, call_id: str, fields: dict[str, str | None] | None = None) -> None:
    turns = (SpokenTurn("agent", "Hello?", 0.0, 0.5), SpokenTurn("customer", "Yes.", 1.0, 1.5))
    made = Transcription(turns, Digest("They talked", "Interested", 0.9, fields=fields), "en", 2.0)
    async with context.db.transaction() as session:
        await transcripts.save(session, call_id, made, engine="a test's")


async def save_recording(context: Context, call_id: str) -> None:
    async with context.db.transaction() as session:
        stored = Stored(recordings.storage_key(call_id, "audio/wav"), 3, "ab")
        await recordings.save(session, call_id, stored, "audio/wav")


async def send_due(context: Context, *call_ids: str, at_once: int = 50) -> int:
    """Let time pass until the next attempt, and run it. Returns how many tasks there were."""
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
    limit = asyncio.Semaphore(at_once)

    async def one(task_id: int) -> None:
        async with limit:
            await run_now(context, task_id)

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
        return await callbacks.list_valid_secrets(session, user.id)


def events(receiver: Receiver) -> list[str]:
    return [json.loads(callback.body)["event"] for callback in receiver.received]
