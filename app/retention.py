"""Deletes what must not be kept: after a number of days, or because its user is erased.

Files are deleted before the rows that name them, under the call's lock. If the process dies in between, the next run
finds the row and tries again. So no file stays behind without a row.
"""

from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts, calls, dids, recordings, tasks
from app.db import Database
from app.engine_models import Task, TaskKind
from app.errors import Conflict
from app.models import Call, Delivery, Did, RecordingRow, TranscriptRow, TranscriptStatus, User
from app.storage import Storage, StorageError

log = structlog.get_logger()

_AT_ONCE = 200
_FORGOTTEN = "The transcript was deleted: this server keeps them for {days} days"


async def delete_old(db: Database, storage: Storage, *, days: int) -> int:
    """Delete recordings, transcripts and callbacks of calls that ended `days` days ago. The calls themselves stay. A
    call with open tasks is left alone. Returns of how many calls something was deleted.

    If a recording cannot be deleted, that is logged, and the others are deleted.
    """
    total, last = 0, ""
    while True:
        async with db.transaction() as session:
            some = select(Call.id).where(*_holds_something_old(days), Call.id > last).order_by(Call.id).limit(_AT_ONCE)
            old = list(await session.scalars(some))
        if not old:
            return total
        for call_id in old:
            try:
                async with db.transaction() as session:
                    total += await _delete_of(session, storage, call_id, days)
            except StorageError as error:
                log.error("not_deleted", call_id=call_id, error=str(error))
        last = old[-1]


def _holds_something_old(days: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Call.ended_at < func.now() - timedelta(days=days),
        or_(
            Call.recording_url.is_not(None),
            exists().where(RecordingRow.call_id == Call.id),
            exists().where(TranscriptRow.call_id == Call.id, TranscriptRow.history.is_not(None)),
            exists().where(Delivery.call_id == Call.id),
        ),
        ~exists().where(Task.call_id == Call.id),
    )


async def _delete_of(session: AsyncSession, storage: Storage, call_id: str, days: int) -> bool:
    await tasks.lock_call(session, call_id)
    if await session.scalar(select(Call.id).where(Call.id == call_id, *_holds_something_old(days))) is None:
        return False  # the call changed since it was selected
    if await recordings.find(session, call_id) is not None:
        await storage.delete(recordings.storage_keys(call_id))
    await session.execute(delete(RecordingRow).where(RecordingRow.call_id == call_id))
    await session.execute(delete(Delivery).where(Delivery.call_id == call_id))
    await calls.remove_recording_url(session, call_id)
    await session.execute(
        update(TranscriptRow)
        .where(TranscriptRow.call_id == call_id, TranscriptRow.history.is_not(None))
        .values(
            status=TranscriptStatus.FAILED,
            failure=_FORGOTTEN.format(days=days),
            summary=None,
            outcome=None,
            history=None,
            updated_at=func.now(),
        )
    )
    return True


async def erase_user(db: Database, storage: Storage, user: User) -> int:
    """Delete everything of this user: logins, keys, calls, transcripts, recordings, callbacks. Their numbers belong to
    nobody then. Returns how many calls there were.

    The user is made inactive first. Raises `Conflict` while a call of theirs is not over.
    """
    async with db.transaction() as session:
        await accounts.set_active(session, await session.get_one(User, user.id), active=False)
        await _give_up_fetching(session, user)
    async with db.transaction() as session:
        await _lock_all(session, user)
        await _refuse_if_busy(session, user)
        ids = await session.scalars(select(Call.id).where(Call.user_id == user.id))
        # Every possible key, because a worker that died may have left half a recording without a row.
        await storage.delete([key for call_id in ids for key in recordings.storage_keys(call_id)])
        for did in await session.scalars(select(Did).where(Did.user_id == user.id)):
            await dids.assign(session, did, None)
        await session.flush()
        erased = await session.execute(delete(Call).where(Call.user_id == user.id).returning(Call.id))
        count = len(erased.all())
        await session.execute(delete(User).where(User.id == user.id))
    return count


async def _lock_all(session: AsyncSession, user: User) -> None:
    """Keep workers from writing for any call of the user, and reports from adding one, until the transaction ends."""
    await session.execute(select(Call.id).where(Call.user_id == user.id).order_by(Call.id).with_for_update())
    await session.execute(select(User.id).where(User.id == user.id).with_for_update())


async def _give_up_fetching(session: AsyncSession, user: User) -> None:
    """Stop fetching recordings. A URL without a recording is tried for an hour, and erasing must not wait for that."""
    waiting = exists().where(Task.call_id == Call.id, Task.kind == TaskKind.FETCH_RECORDING, _is_free())
    fetched = select(Call).where(
        Call.user_id == user.id, Call.ended_at.is_not(None), Call.recording_url.is_not(None), waiting
    )
    for call in await session.scalars(fetched.order_by(Call.id).with_for_update()):
        await tasks.discard(session, TaskKind.FETCH_RECORDING, call.id)
        await recordings.give_up(session, call.id, "There is no usable recording: the account is being erased")
        if not call.only_reported:  # our provider may have recorded it, too
            await tasks.add(session, TaskKind.HANGUP, call.id)


async def _refuse_if_busy(session: AsyncSession, user: User) -> None:
    """Raises `Conflict` for a live call, and for a call whose tasks are running or must still run."""
    may_go = or_(Task.kind == TaskKind.DELIVER, and_(Task.kind == TaskKind.TRANSCRIBE, _is_free()))
    busy_task = exists().where(Task.call_id == Call.id, ~may_go)
    of_user = select(Call.id).where(Call.user_id == user.id).order_by(Call.id).limit(5)
    if live := list(await session.scalars(of_user.where(Call.ended_at.is_(None)))):
        raise Conflict(
            f"{user.email} is inactive now, but not erased: not over yet: {', '.join(live)}. "
            "End them with `ringback calls cancel ID`, or wait, and erase again"
        )
    if busy := list(await session.scalars(of_user.where(busy_task))):
        raise Conflict(
            f"{user.email} is inactive now, but not erased: still being cleared up: {', '.join(busy)}. "
            "Wait a few seconds, and erase again"
        )


def _is_free() -> ColumnElement[bool]:
    """No worker has claimed this task."""
    return or_(Task.lease_until.is_(None), Task.lease_until < func.now())
