"""Deletes what must not be kept: after a number of days, or because its user is erased.

Files are deleted before the rows that name them, under the call's lock. If the process dies in between, the next run
finds the row and tries again. So no file stays behind without a row.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, true, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts, calls, dids, recordings, tasks
from app.db import Database
from app.engine_models import Task, TaskKind
from app.errors import Conflict
from app.models import Call, Delivery, DeliveryStatus, Did, RecordingRow, TranscriptRow, TranscriptStatus, User
from app.storage import Storage, StorageError

log = structlog.get_logger()

_AT_ONCE = 100
"""Of so many calls at a time. What is locked meanwhile are calls that ended long ago."""
_DELIVERIES_AT_ONCE = 1000
_FORGOTTEN = "The transcript was deleted: this server keeps them for {days} days"


async def delete_old(db: Database, storage: Storage, *, days: int) -> int:
    """Delete recordings, transcripts and callbacks of calls that ended `days` days ago. The calls themselves stay. A
    call with open tasks is left alone. Returns of how many calls something was deleted.

    If a recording cannot be deleted, that is logged, and the others are deleted.
    """
    total = 0
    for at, call_id, holds_something in _OLD_THINGS:
        last: tuple[Any, ...] = (datetime.min.replace(tzinfo=UTC), "")
        while True:
            # In the order of an index, from where the last ones ended. So a run costs what it deletes.
            some = (
                select(at, call_id)
                .where(holds_something, at < func.now() - timedelta(days=days), tuple_(at, call_id) > last)
                .order_by(at, call_id)
                .limit(_AT_ONCE)
            )
            async with db.transaction() as session:
                rows = (await session.execute(some)).all()
            if not rows:
                break
            last = tuple(rows[-1])
            total += await _delete_of(db, storage, [row[1] for row in rows], days)
    return total + await delete_old_callbacks(db, days=days)


_OLD_THINGS: tuple[tuple[Any, Any, ColumnElement[bool]], ...] = (
    # A transcript is created with its call, and a recording shortly after the end. A recording that another system
    # reports much later has a URL.
    (TranscriptRow.created_at, TranscriptRow.call_id, TranscriptRow.history.is_not(None)),
    (RecordingRow.created_at, RecordingRow.call_id, true()),
    (Call.ended_at, Call.id, Call.recording_url.is_not(None)),
)
"""What is deleted: since when it is there, whose it is, and whether it is still there. Each has its index."""


async def _delete_of(db: Database, storage: Storage, call_ids: Sequence[str], days: int) -> int:
    try:
        async with db.transaction() as session:
            return await _delete_together(session, storage, call_ids, days)
    except StorageError as error:
        if len(call_ids) == 1:
            log.error("not_deleted", call_id=call_ids[0], error=str(error))
            return 0
    return sum([await _delete_of(db, storage, [call_id], days) for call_id in call_ids])


async def _delete_together(session: AsyncSession, storage: Storage, call_ids: Sequence[str], days: int) -> int:
    may_go = (Call.ended_at < func.now() - timedelta(days=days), ~exists().where(Task.call_id == Call.id))
    these = select(Call.id, Call.recording_url).where(Call.id.in_(call_ids), *may_go)
    locked = (await session.execute(these.order_by(Call.id).with_for_update(of=Call))).all()
    old = [row.id for row in locked]
    stored = list(await session.scalars(select(RecordingRow.call_id).where(RecordingRow.call_id.in_(old))))
    await storage.delete([key for call_id in stored for key in recordings.storage_keys(call_id)])
    await session.execute(delete(RecordingRow).where(RecordingRow.call_id.in_(old)))
    await session.execute(delete(Delivery).where(Delivery.call_id.in_(old)))
    await calls.remove_recording_urls(session, [row.id for row in locked if row.recording_url is not None])
    await session.execute(
        update(TranscriptRow)
        .where(TranscriptRow.call_id.in_(old), TranscriptRow.history.is_not(None))
        .values(
            status=TranscriptStatus.FAILED,
            failure=_FORGOTTEN.format(days=days),
            summary=None,
            outcome=None,
            history=None,
            updated_at=func.now(),
        )
    )
    return len(old)


async def delete_old_callbacks(db: Database, *, days: int) -> int:
    """Delete callbacks that were written `days` days ago and are not pending, with their attempts. Returns how many
    there were."""
    total, last = 0, 0
    while True:
        async with db.transaction() as session:
            # Their ids are in the order of their times.
            oldest = select(Delivery.id, Delivery.created_at).where(Delivery.id > last).order_by(Delivery.id)
            some = oldest.limit(_DELIVERIES_AT_ONCE).subquery()
            is_old = some.c.created_at < func.now() - timedelta(days=days)
            ids = list(await session.scalars(select(some.c.id).where(is_old).order_by(some.c.id)))
            if not ids:
                return total
            last = ids[-1]
            over = Delivery.id.in_(ids), Delivery.status != DeliveryStatus.PENDING
            deleted = await session.execute(delete(Delivery).where(*over).returning(Delivery.id))
            total += len(deleted.all())


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
