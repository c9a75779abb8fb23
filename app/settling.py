"""What becomes of pending work after a restore. By default nobody is dialed, hung up or called back.

A backup is of the past. Since then the installation that it was taken from has dialed those calls and sent those
callbacks, and its provider may have given their references to other calls. So of each kind of task:

    dial, connect     dropped. The call ends as failed
    track, hangup     dropped. The call ends as timed out, because how it ended is not known
    fetch_recording   dropped, because it ends with deleting the provider's copy, which may be another installation's
    deliver           dropped. The delivery fails, and can be replayed by hand
    transcribe        done, because it reaches nobody. Its callback is not sent

Each call says so in its history. All logins end, because some may have been ended since.

If nothing ran since the backup was taken, the work can go on instead (`release`).
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    any_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, calls, recordings, tasks, transcripts
from app.engine_models import Task, TaskKind, Worker
from app.health import WORKER_SILENT_SECONDS
from app.models import Call, CallEventRow, Delivery, DeliveryStatus, LoginSession, RecordingRow
from app.telephony.base import CallEvent, CallStatus

RESTORED = "restored"
"""Key of the event that ends a call."""


@dataclass(frozen=True, slots=True)
class SettledWork:
    """What pending work came to."""

    calls: int
    """Calls that were live, and ended."""
    deliveries: int
    """Callbacks that failed without being sent."""
    dropped: dict[str, int]
    """Dropped tasks by kind."""
    transcriptions: int
    """Recordings that will be transcribed."""


async def hold(session: AsyncSession) -> None:
    """Keep all tasks from the workers until `settle` or `release`: a claimed task is left alone, and this claim never
    ends. The tables may be of an earlier revision."""
    await session.execute(text("UPDATE tasks SET lease_token = gen_random_uuid(), lease_until = 'infinity'"))


def is_held() -> ColumnElement[bool]:
    """Whether a task is on hold."""
    return Task.lease_until == literal_column("'infinity'")


async def has_workers(session: AsyncSession) -> bool:
    """Whether a worker had a heartbeat in the last seconds."""
    alive = Worker.seen_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, WORKER_SILENT_SECONDS)
    return bool(await session.scalar(select(exists().where(alive))))


async def get_last_activity(session: AsyncSession) -> datetime:
    """When a worker last had a heartbeat, or something last happened to a call."""
    seen, happened = select(func.max(Worker.seen_at)), select(func.max(CallEventRow.recorded_at))
    newest = func.greatest(seen.scalar_subquery(), happened.scalar_subquery())
    at: datetime = (await session.execute(select(func.coalesce(newest, func.now())))).scalar_one()
    return at


async def settle(session: AsyncSession, at: datetime) -> SettledWork:
    """Settle everything that was pending `at` the moment of the backup. No worker may run."""
    origin = f"Restored from a backup of {at:%Y-%m-%d %H:%M:%S} UTC"
    dropped: dict[str, list[str]] = defaultdict(list)
    for call_id, kind in await session.execute(select(Task.call_id, Task.kind).order_by(Task.id)):
        dropped[call_id].append(kind)
    live = set(await session.scalars(select(Call.id).where(Call.ended_at.is_(None))))
    unsent = set(await session.scalars(select(Delivery.call_id).where(Delivery.status == DeliveryStatus.PENDING)))
    unread = set(await transcripts.list_open(session))
    await session.execute(delete(Task))
    deliveries = await callbacks.fail_all_pending(session, f"Not sent: {_lower(origin)}")
    for call_id in sorted({*dropped, *live, *unsent, *unread}):
        await _settle_call(session, call_id, origin, at, dropped[call_id])
    # The end of a call adds tasks that reach its provider.
    await session.execute(delete(Task).where(Task.kind != TaskKind.TRANSCRIBE))
    await session.execute(update(LoginSession).where(LoginSession.revoked_at.is_(None)).values(revoked_at=func.now()))
    counts: dict[str, int] = defaultdict(int)
    for kinds in dropped.values():
        for kind in kinds:
            counts[kind] += kind != TaskKind.TRANSCRIBE
    left = await session.scalar(select(func.count()).select_from(Task))
    return SettledWork(len(live), deliveries, {kind: n for kind, n in sorted(counts.items()) if n}, left or 0)


async def _settle_call(session: AsyncSession, call_id: str, origin: str, at: datetime, dropped: list[str]) -> None:
    await tasks.lock_call(session, call_id)
    await calls.remove_callback_url(session, call_id)
    columns = (Call.status, Call.created_at, Call.answered_at, Call.ended_at)
    call = (await session.execute(select(*columns).where(Call.id == call_id))).one()
    if call.ended_at is None:
        # Talk is counted until then, and not until now.
        ended_at = max(time for time in (at, call.created_at, call.answered_at) if time is not None)
        await calls.apply_events(session, call_id, [_end_of(call.status, origin, ended_at)], max_call_seconds=0)
    else:
        given_up = ", ".join(kind for kind in dropped if kind != TaskKind.TRANSCRIBE)
        note = f"{origin}. {f'Not done: {given_up}. ' if given_up else ''}No callbacks are sent"
        await calls.add_note(session, call_id, note)
    if call_id in await transcripts.list_open(session, call_id):
        if await recordings.find(session, call_id) is None:
            await recordings.give_up(session, call_id, f"{origin}, before the recording was stored")
        else:
            await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


def _end_of(status: str, origin: str, ended_at: datetime) -> CallEvent:
    if status == CallStatus.QUEUED:
        return CallEvent(RESTORED, CallStatus.FAILED, ended_at, detail=f"{origin}, and not dialed. Place a new call")
    was = status.replace("_", " ")
    why = f"{origin}, in which this call was {was}. How it ended is not known"
    return CallEvent(RESTORED, CallStatus.TIMED_OUT, ended_at, detail=why)


def _lower(origin: str) -> str:
    return origin[0].lower() + origin[1:]


async def release(session: AsyncSession) -> int:
    """Let workers claim all tasks at once, as if the installation had been stopped for a while. Returns how many."""
    released = await session.execute(update(Task).values(lease_token=None, lease_until=None).returning(Task.id))
    return len(released.all())


async def remove_recordings(session: AsyncSession, storage_keys: list[str]) -> None:
    """These recordings are not in the backup: they were deleted while it was taken, or lost before."""
    keys = bindparam("keys", storage_keys, type_=ARRAY(Text))  # one parameter, however many there are
    removing = delete(RecordingRow).where(RecordingRow.storage_key == any_(keys)).returning(RecordingRow.call_id)
    for call_id in list(await session.scalars(removing)):
        await tasks.lock_call(session, call_id)
        await calls.add_note(session, call_id, "Its recording was not there when the backup was taken")
