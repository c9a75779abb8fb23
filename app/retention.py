"""Deleting what is no longer to be kept: after so many days, or because its user is to be forgotten.

Bytes go before the rows that know of them. So whatever dies in between, the next run finds the row and does it again,
and no bytes stay behind that nobody knows of.
"""

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts, callbacks, dids
from app.db import Database
from app.errors import Conflict
from app.models import Call, Delivery, Did, Recording, Task, TaskKind, Transcript, TranscriptStatus, User
from app.storage import Storage

_AT_ONCE = 200
_FORGOTTEN = "The transcript was deleted: this server keeps them for {days} days"


async def delete_old(db: Database, storage: Storage, *, days: int) -> int:
    """Recordings, transcripts and callbacks of calls that ended so many days ago. The calls themselves stay. Returns
    of how many calls something was deleted."""
    total = 0
    while True:
        async with db.transaction() as session:
            old = list(await session.scalars(select(Call.id).where(*_holds_something_old(days)).limit(_AT_ONCE)))
        for call_id in old:
            await _delete_bytes(db, storage, call_id)
            async with db.transaction() as session:
                await _delete_rows(session, call_id, days)
        total += len(old)
        if len(old) < _AT_ONCE:
            return total


def _holds_something_old(days: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Call.ended_at < func.now() - timedelta(days=days),
        or_(
            Call.recording_url.is_not(None),
            exists().where(Recording.call_id == Call.id),
            exists().where(Transcript.call_id == Call.id, Transcript.history.is_not(None)),
            exists().where(Delivery.call_id == Call.id),
        ),
        ~exists().where(Task.call_id == Call.id, Task.kind.in_((TaskKind.FETCH_RECORDING, TaskKind.TRANSCRIBE))),
    )


async def _delete_bytes(db: Database, storage: Storage, call_id: str) -> None:
    async with db.transaction() as session:
        key = await session.scalar(select(Recording.storage_key).where(Recording.call_id == call_id))
    if key is not None:
        await storage.delete(key)


async def _delete_rows(session: AsyncSession, call_id: str, days: int) -> None:
    await callbacks.lock(session, call_id)
    await session.execute(delete(Recording).where(Recording.call_id == call_id))
    await session.execute(delete(Delivery).where(Delivery.call_id == call_id))
    await session.execute(update(Call).where(Call.id == call_id).values(recording_url=None))
    await session.execute(
        update(Transcript)
        .where(Transcript.call_id == call_id, Transcript.status == TranscriptStatus.READY)
        .values(
            status=TranscriptStatus.FAILED,
            failure=_FORGOTTEN.format(days=days),
            summary=None,
            outcome=None,
            history=None,
            updated_at=func.now(),
        )
    )


async def erase_user(db: Database, storage: Storage, user: User) -> int:
    """Everything of this user: logins, keys, calls, transcripts, recordings, callbacks. Their numbers become nobody's.
    Returns how many calls there were.

    The user is shut out first. Raises `Conflict` while a call of theirs is not over.
    """
    async with db.transaction() as session:
        await accounts.set_active(session, await session.get_one(User, user.id), active=False)
    async with db.transaction() as session:
        await _lock_all(session, user)
        await _refuse_if_busy(session, user)
        stored = select(Recording.storage_key).join(Call, Call.id == Recording.call_id).where(Call.user_id == user.id)
        for key in await session.scalars(stored):
            await storage.delete(key)
        for did in await session.scalars(select(Did).where(Did.user_id == user.id)):
            await dids.assign(session, did, None)
        await session.flush()
        erased = await session.execute(delete(Call).where(Call.user_id == user.id).returning(Call.id))
        count = len(erased.all())
        await session.execute(delete(User).where(User.id == user.id))
    return count


async def _lock_all(session: AsyncSession, user: User) -> None:
    """Until the transaction ends no worker writes for a call of the user, and no report adds one."""
    await session.execute(select(Call.id).where(Call.user_id == user.id).order_by(Call.id).with_for_update())
    await session.execute(select(User.id).where(User.id == user.id).with_for_update())


async def _refuse_if_busy(session: AsyncSession, user: User) -> None:
    """A call that is up, or of which something is still to be fetched or cleared up elsewhere."""
    owed = exists().where(Task.call_id == Call.id, Task.kind != TaskKind.DELIVER)
    busy = list(
        await session.scalars(
            select(Call.id).where(Call.user_id == user.id, or_(Call.ended_at.is_(None), owed)).limit(5)
        )
    )
    if busy:
        raise Conflict(
            f"{user.email} is inactive now, but not erased: not over yet: {', '.join(busy)}. "
            "End them with `ringback calls cancel ID`, or wait, and erase again"
        )
