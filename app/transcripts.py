"""The transcript of a call: asked for with the call, made by a worker, read by whoever polls."""

import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.errors import InactiveUser, InvalidToken, NoSuchCall, NotYourCall
from app.models import Transcript, TranscriptStatus
from app.security import Claims
from app.transcription.base import Transcription


def new_transcript_id() -> str:
    return secrets.token_hex(12)


@dataclass(frozen=True, slots=True)
class TranscriptView:
    """What a poller may see. The texts are there when `status` is ready, `failure` when it is failed."""

    call_id: str
    status: TranscriptStatus
    failure: str | None
    id: str
    summary: str | None
    outcome: str | None
    history: list[dict[str, Any]] | None
    created_at: datetime
    updated_at: datetime


# One statement answers: does the login still count, whose call is this, how far is its transcript.
_READ = text("""
SELECT users.is_active, calls.user_id AS owner_id, transcripts.id, transcripts.status, transcripts.failure,
       transcripts.summary, transcripts.outcome, transcripts.history, transcripts.created_at, transcripts.updated_at
FROM login_sessions
JOIN users ON users.id = login_sessions.user_id
LEFT JOIN calls ON calls.id = :call_id
LEFT JOIN transcripts ON transcripts.call_id = calls.id
WHERE login_sessions.id = :session_id AND users.id = :user_id
  AND login_sessions.expires_at > now() AND (login_sessions.revoked_at IS NULL OR NOT users.is_active)
""").columns(history=Transcript.history.type)


async def read(db: Database, claims: Claims, call_id: str) -> TranscriptView:
    """The transcript of the user's own call.

    Raises `InvalidToken` when the login has ended, `InactiveUser`, `NoSuchCall`, `NotYourCall`.
    """
    async with db.statement() as connection:
        result = await connection.execute(
            _READ, {"call_id": call_id, "session_id": claims.session_id, "user_id": claims.user_id}
        )
        row = result.one_or_none()
    if row is None:
        raise InvalidToken
    if not row.is_active:
        raise InactiveUser
    if row.owner_id is None:
        raise NoSuchCall
    if row.owner_id != claims.user_id:
        raise NotYourCall
    return TranscriptView(
        call_id=call_id,
        status=TranscriptStatus(row.status),
        failure=row.failure,
        id=row.id,
        summary=row.summary,
        outcome=row.outcome,
        history=row.history,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


_OPEN = (TranscriptStatus.PENDING, TranscriptStatus.PROCESSING)


async def start(session: AsyncSession, call_id: str) -> bool:
    """Mark it as being made; False if it has come to an end already."""
    return await _write(session, call_id, status=TranscriptStatus.PROCESSING)


async def save(session: AsyncSession, call_id: str, made: Transcription, *, engine: str) -> bool:
    """It is ready; False if it had come to an end already."""
    return await _write(
        session,
        call_id,
        status=TranscriptStatus.READY,
        summary=made.digest.summary,
        outcome=made.digest.outcome,
        history=[asdict(turn) for turn in made.turns],
        language=made.language,
        engine=engine,
    )


async def fail(session: AsyncSession, call_id: str, reason: str) -> bool:
    """There will be none, and `reason` tells a person why; False if it had come to an end already."""
    return await _write(session, call_id, status=TranscriptStatus.FAILED, failure=reason)


async def _write(session: AsyncSession, call_id: str, **values: Any) -> bool:
    writing = (
        update(Transcript)
        .where(Transcript.call_id == call_id, Transcript.status.in_(_OPEN))
        .values(updated_at=func.now(), **values)
        .returning(Transcript.id)
    )
    return await session.scalar(writing) is not None
