"""What happened to calls, for the person who runs the server."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Call, CallEventRow, Delivery, Recording, Task, Transcript, User


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call in a list."""

    call: Call
    transcript: Transcript


@dataclass(frozen=True, slots=True)
class CallStory:
    """All there is to know of one call."""

    call: Call
    email: str
    events: list[CallEventRow]
    transcript: Transcript
    recording: Recording | None
    open_tasks: list[Task]
    callbacks: list[Delivery]


async def recent_calls(session: AsyncSession, *, limit: int, user: User | None = None) -> list[CallLine]:
    """The newest calls first; of one user, if given."""
    query = (
        select(Call, Transcript)
        .join(Transcript, Transcript.call_id == Call.id)
        .order_by(Call.created_at.desc(), Call.id.desc())
        .limit(limit)
    )
    if user is not None:
        query = query.where(Call.user_id == user.id)
    return [CallLine(*row) for row in await session.execute(query)]


async def events_after(session: AsyncSession, call_id: str, last_id: int) -> list[CallEventRow]:
    """The call's events newer than this one, oldest first."""
    query = select(CallEventRow).where(CallEventRow.call_id == call_id, CallEventRow.id > last_id)
    return list(await session.scalars(query.order_by(CallEventRow.id)))


async def transcript_of(session: AsyncSession, call_id: str) -> Transcript:
    """The call's transcript, however far it is."""
    return (await session.scalars(select(Transcript).where(Transcript.call_id == call_id))).one()


async def story_of(session: AsyncSession, call_id: str) -> CallStory | None:
    """The whole story of a call; None if there is no such call."""
    call = await session.get(Call, call_id)
    if call is None:
        return None
    user = await session.get_one(User, call.user_id)
    recording = await session.get(Recording, call_id)
    open_tasks = await session.scalars(select(Task).where(Task.call_id == call_id).order_by(Task.id))
    callbacks = await session.scalars(select(Delivery).where(Delivery.call_id == call_id).order_by(Delivery.id))
    return CallStory(
        call=call,
        email=user.email,
        events=await events_after(session, call_id, 0),
        transcript=await transcript_of(session, call_id),
        recording=recording,
        open_tasks=list(open_tasks),
        callbacks=list(callbacks),
    )
