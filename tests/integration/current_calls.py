"""Helpers for tests of the newest dialect: ordering a call, and moving it on."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select, update

from app import calls, dids, recordings, transcripts
from app.db import Database
from app.engine_models import Task
from app.models import Call, Did, User
from app.numbers import PhoneNumber
from app.settings import Settings
from app.storage import Stored
from app.telephony.base import CallEvent, CallStatus
from app.transcription.base import Digest, SpokenTurn, Transcription

CREATE = "/api/calls/click2call"
ALLOCATION = "/api/mobile-numbers/channel-allocation"
CREATED = "Click2Call request created"
numbers = iter(range(10**9))


async def add_did(db: Database, user: User | None, *, channels: int = 10, allocated: int = 0) -> Did:
    async with db.transaction() as session:
        did = await dids.add(session, PhoneNumber(f"9170{next(numbers):08d}"), owner=user, max_channels=channels)
        did.allocated_channels = allocated
        return did


async def set_pool(db: Database, user: User, channels: int) -> None:
    async with db.transaction() as session:
        await session.execute(update(User).where(User.id == user.id).values(pool_channels=channels))


def order(did: Did | None, **more: Any) -> dict[str, Any]:
    body = {"customer_number": "919999999999", "agent_number": "918888888888", **more}
    return body if did is None else {"did": did.number, **body}


async def dial(db: Database, call_id: str) -> None:
    """Claim the call's dial attempt, as a worker does."""
    async with db.transaction() as session:
        assert await calls.start_dialing(session, call_id, uuid4(), answer_timeout_seconds=60)


async def happen(db: Database, call_id: str, *events: CallEvent) -> None:
    async with db.transaction() as session:
        await calls.apply_events(session, call_id, events, max_call_seconds=60)


def ended(status: CallStatus = CallStatus.COMPLETED, *, recording: bool = True) -> CallEvent:
    return CallEvent("ended", status, datetime.now(UTC), has_recording=recording)


async def talk(db: Database, call_id: str, *, recording: bool = True) -> None:
    async with db.transaction() as session:
        began = datetime.now(UTC) - timedelta(seconds=42)
        await session.execute(update(Call).where(Call.id == call_id).values(status="ringing", dialed_at=began))
    answered = CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC) - timedelta(seconds=30))
    await happen(db, call_id, answered, ended(recording=recording))


async def store(db: Database, settings: Settings, call_id: str, content: bytes = b"RIFF and so on") -> None:
    key = recordings.storage_key(call_id, "audio/wav")
    path = settings.data_dir / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    async with db.transaction() as session:
        await recordings.save(session, call_id, Stored(key, len(content), "ab" * 32), "audio/wav")
        for task in await session.scalars(select(Task).filter_by(call_id=call_id, kind="fetch_recording")):
            await session.delete(task)


async def transcribed(db: Database, call_id: str) -> None:
    made = Transcription((SpokenTurn("agent", "Hello?", 0.0, 0.5),), Digest("They talked", "Interested"), "en", 10.0)
    async with db.transaction() as session:
        assert await transcripts.save(session, call_id, made, engine="a test's")
