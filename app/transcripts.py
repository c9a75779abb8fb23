"""The transcript of a call: ordered with the call, made by a worker, read by the client."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_state, call_views, callbacks, changes, metrics, tasks
from app.call_views import CallView
from app.db import Compiled, Database, after_commit
from app.engine_models import TaskKind
from app.errors import Conflict, InactiveUser, InvalidToken, NoSuchCall, NotYourCall
from app.models import Call, LoginSession, RecordingRow, TranscriptRow, TranscriptStatus, User
from app.security import Claims
from app.transcription.base import Transcription


def new_transcript_id() -> str:
    return secrets.token_hex(12)


@dataclass(frozen=True, slots=True)
class TranscriptView:
    """A transcript as the client sees it. The texts are set when `status` is ready, `failure` when it is failed."""

    call_id: str
    status: TranscriptStatus
    failure: str | None
    id: str
    summary: str | None
    outcome: str | None
    history: list[dict[str, Any]] | None
    created_at: datetime
    updated_at: datetime


# One statement for a poll, which is what this server does most: check the login, the owner and the transcript's status.
# Every call has a transcript.
_READ = Compiled(
    select(
        User.is_active,
        TranscriptRow.user_id,
        TranscriptRow.id,
        TranscriptRow.status,
        TranscriptRow.failure,
        TranscriptRow.summary,
        TranscriptRow.outcome,
        TranscriptRow.history,
        TranscriptRow.created_at,
        TranscriptRow.updated_at,
    )
    .select_from(LoginSession)
    .join(User, User.id == LoginSession.user_id)
    .outerjoin(TranscriptRow, TranscriptRow.call_id == bindparam("call_id"))
    .where(
        LoginSession.id == bindparam("session_id"),
        User.id == bindparam("user_id"),
        LoginSession.expires_at > func.now(),
        or_(LoginSession.revoked_at.is_(None), User.is_active.is_(False)),
    )
)


async def read(db: Database, claims: Claims, call_id: str) -> TranscriptView:
    """The transcript of the user's own call.

    Raises `InvalidToken` when the login has ended, `InactiveUser`, `NoSuchCall`, `NotYourCall`.
    """
    row = await db.fetch_one(_READ, {"call_id": call_id, "session_id": claims.session_id, "user_id": claims.user_id})
    if row is None:
        raise InvalidToken
    if not row["is_active"]:
        raise InactiveUser
    if row["user_id"] is None:
        raise NoSuchCall
    if row["user_id"] != claims.user_id:
        raise NotYourCall
    return TranscriptView(
        call_id=call_id,
        status=TranscriptStatus(row["status"]),
        failure=row["failure"],
        id=row["id"],
        summary=row["summary"],
        outcome=row["outcome"],
        history=row["history"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


OPEN = (TranscriptStatus.PENDING, TranscriptStatus.PROCESSING)
"""The statuses of a transcript that is still to be made."""


async def list_open(session: AsyncSession, call_id: str | None = None) -> list[str]:
    """The calls whose transcripts are still to be made, or only this one if its is."""
    query = select(TranscriptRow.call_id).where(TranscriptRow.status.in_(OPEN))
    return list(await session.scalars(query if call_id is None else query.where(TranscriptRow.call_id == call_id)))


async def start(session: AsyncSession, call_id: str) -> bool:
    """Mark the transcript as being made. False if it is ready, failed or disabled already."""
    return await _write(session, call_id, status=TranscriptStatus.PROCESSING)


async def save(session: AsyncSession, call_id: str, made: Transcription, *, engine: str) -> bool:
    """Save the finished transcript. False if it is ready, failed or disabled already."""
    saved = await _write(
        session,
        call_id,
        status=TranscriptStatus.READY,
        summary=made.digest.summary,
        outcome=made.digest.outcome,
        certainty=made.digest.certainty,
        detail=made.digest.detail,
        fields=made.digest.fields,
        history=[
            {"role": turn.role, "content": turn.content, "start": turn.start, "end": turn.end} for turn in made.turns
        ],
        language=made.language,
        engine=engine,
    )
    if saved:
        since_order, since_end = (await session.execute(_AGES.where(Call.id == call_id))).one()
        after_commit(
            session, metrics.transcript_ready, float(since_order), None if since_end is None else float(since_end)
        )
    return saved


_AGES = select(
    func.extract("epoch", func.now() - func.coalesce(Call.dial_after, Call.created_at)),
    func.extract("epoch", func.now() - Call.ended_at),
)


async def fail(session: AsyncSession, call_id: str, reason: str) -> bool:
    """Mark the transcript as failed, with the reason for a person. False if it is ready or disabled already. For one
    that had failed, only the reason changes, and the client is not notified again."""
    failed = await _write(session, call_id, status=TranscriptStatus.FAILED, failure=reason)
    if not failed:
        await session.execute(
            update(TranscriptRow)
            .where(TranscriptRow.call_id == call_id, TranscriptRow.status == TranscriptStatus.FAILED)
            .values(failure=reason, updated_at=func.now())
        )
    return failed


async def _write(session: AsyncSession, call_id: str, **values: Any) -> bool:
    await tasks.lock_call(session, call_id)
    changes.note(session, call_id)
    writing = (
        update(TranscriptRow)
        .where(TranscriptRow.call_id == call_id, TranscriptRow.status.in_(OPEN))
        .values(updated_at=func.now(), **values)
        .returning(TranscriptRow.status)
    )
    status = await session.scalar(writing)
    if status in (TranscriptStatus.READY, TranscriptStatus.FAILED):
        await callbacks.notify_transcript(session, call_id)
    return status is not None


async def reopen(session: AsyncSession, call_id: str) -> None:
    """Open a failed transcript again. The client will be notified of its end again. A disabled one is notified again,
    too, if the recording has only now become known."""
    await tasks.lock_call(session, call_id)
    changes.note(session, call_id)
    next_round = {"round": TranscriptRow.round + 1, "updated_at": func.now()}
    again = update(TranscriptRow).where(TranscriptRow.call_id == call_id)
    await session.execute(
        again.where(TranscriptRow.status == TranscriptStatus.FAILED).values(
            status=TranscriptStatus.PENDING, failure=None, **next_round
        )
    )
    no_recording = ~exists().where(RecordingRow.call_id == TranscriptRow.call_id)
    await session.execute(
        again.where(TranscriptRow.status == TranscriptStatus.DISABLED, no_recording).values(**next_round)
    )


async def retry(db: Database, user_id: str, call_id: str) -> CallView:
    """Make the transcript of the user's own call again, from its stored recording. Returns the call.

    Raises `NoSuchCall`, `NotYourCall`, and `Conflict` if it is being made, or there is nothing to make.
    """
    await call_views.get_own(db, user_id, call_id)
    async with db.transaction() as session:
        await tasks.lock_call(session, call_id)
        call = await call_views.find(session, call_id)
        if call is None:
            raise NoSuchCall
        why_not = _WHY_NOT_AGAIN.get(call.transcript_status)
        if why_not is None and call.is_unanswered:
            why_not = call_state.WHY_NO_TRANSCRIPT[call.status]
        if why_not is None and not call.has_recording:
            why_not = "There is no stored recording of this call"
        if why_not is not None:
            raise Conflict(why_not)
        await reopen(session, call_id)
        await tasks.make_due(session, TaskKind.TRANSCRIBE, call_id)
    return await call_views.get_own(db, user_id, call_id)


_WHY_NOT_AGAIN: dict[TranscriptStatus, str] = {
    TranscriptStatus.DISABLED: "Transcript is disabled for this call",
    TranscriptStatus.READY: "Transcript is ready already",
    TranscriptStatus.PROCESSING: "Transcript is being processed",
}
