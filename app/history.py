"""What happened to calls, for the operator of the server."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine_models import Task
from app.models import Call, CallEventRow, Delivery, RecordingRow, TranscriptRow, User


@dataclass(frozen=True, slots=True)
class CallSummary:
    """One call in a list."""

    call: Call
    transcript: TranscriptRow


@dataclass(frozen=True, slots=True)
class CallHistory:
    """Everything that is known of one call."""

    call: Call
    email: str
    events: list[CallEventRow]
    transcript: TranscriptRow
    recording: RecordingRow | None
    open_tasks: list[Task]
    callbacks: list[Delivery]


async def list_calls(session: AsyncSession, *, limit: int, user: User | None = None) -> list[CallSummary]:
    """The newest calls, of all users or of one."""
    query = (
        select(Call, TranscriptRow)
        .join(TranscriptRow, TranscriptRow.call_id == Call.id)
        .order_by(Call.created_at.desc(), Call.id.desc())
        .limit(limit)
    )
    if user is not None:
        query = query.where(Call.user_id == user.id)
    return [CallSummary(*row) for row in await session.execute(query)]


async def list_events(session: AsyncSession, call_id: str, last_id: int) -> list[CallEventRow]:
    """The call's events after the one with this id, oldest first."""
    query = select(CallEventRow).where(CallEventRow.call_id == call_id, CallEventRow.id > last_id)
    return list(await session.scalars(query.order_by(CallEventRow.id)))


async def get_transcript(session: AsyncSession, call_id: str) -> TranscriptRow:
    """The call's transcript, in any status."""
    return (await session.scalars(select(TranscriptRow).where(TranscriptRow.call_id == call_id))).one()


async def find_call_history(session: AsyncSession, call_id: str) -> CallHistory | None:
    """The history of the call, of any user."""
    call = await session.get(Call, call_id)
    if call is None:
        return None
    user = await session.get_one(User, call.user_id)
    recording = await session.get(RecordingRow, call_id)
    open_tasks = await session.scalars(select(Task).where(Task.call_id == call_id).order_by(Task.id))
    callbacks = await session.scalars(select(Delivery).where(Delivery.call_id == call_id).order_by(Delivery.id))
    return CallHistory(
        call=call,
        email=user.email,
        events=await list_events(session, call_id, 0),
        transcript=await get_transcript(session, call_id),
        recording=recording,
        open_tasks=list(open_tasks),
        callbacks=list(callbacks),
    )
