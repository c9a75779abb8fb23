"""What the installation consists of, for its operator: workers, queues, providers, storage."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine_models import ListenerRow, ProviderRow, Queue, Task, Worker
from app.health import WORKER_SILENT_SECONDS
from app.models import RecordingRow


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue and its workers."""

    queue: Queue
    workers: int
    last_seen: datetime | None
    """The newest heartbeat of a worker, also of one that is silent since."""
    waiting: int
    """Tasks that are due and that nobody works on."""
    running: int
    later: int
    """Tasks that are not due yet."""
    troubled: int
    """Tasks whose last attempt failed."""
    oldest_seconds: float | None
    """For how long the oldest waiting task is due. None: none waits."""


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One telephony provider, and whether it can be reached."""

    name: str
    kind: str | None
    is_default: bool
    is_drained: bool
    connected_since: datetime | None
    problem: str | None


async def list_queues(session: AsyncSession) -> list[QueueFigures]:
    """Every queue."""
    is_due = Task.due_at <= func.now()
    is_leased = func.coalesce(Task.lease_until > func.now(), False)
    counted = await session.execute(
        select(
            Task.queue,
            func.count(case((is_due & ~is_leased, 1))).label("waiting"),
            func.count(case((is_leased, 1))).label("running"),
            func.count(case((~is_due & ~is_leased, 1))).label("later"),
            func.count(Task.last_error).label("troubled"),
            func.extract("epoch", func.now() - func.min(case((is_due & ~is_leased, Task.due_at)))).label("oldest"),
        ).group_by(Task.queue)
    )
    tasks = {row.queue: row for row in counted}
    silent_after = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, WORKER_SILENT_SECONDS)
    heartbeats = await session.execute(
        select(
            Worker.queue,
            func.count(case((Worker.seen_at > silent_after, 1))).label("alive"),
            func.max(Worker.seen_at).label("seen_at"),
        ).group_by(Worker.queue)
    )
    workers = {row.queue: row for row in heartbeats}
    found = []
    for queue in Queue:
        task, worker = tasks.get(queue), workers.get(queue)
        found.append(
            QueueFigures(
                queue,
                workers=0 if worker is None else worker.alive,
                last_seen=None if worker is None else worker.seen_at,
                waiting=0 if task is None else task.waiting,
                running=0 if task is None else task.running,
                later=0 if task is None else task.later,
                troubled=0 if task is None else task.troubled,
                oldest_seconds=None if task is None or task.oldest is None else float(task.oldest),
            )
        )
    return found


async def list_providers(session: AsyncSession) -> list[ProviderState]:
    """Every telephony provider, by name, as its listener sees it."""
    listens = func.coalesce(ListenerRow.lease_until > func.now(), False)
    rows = await session.execute(
        select(
            ProviderRow.name,
            ProviderRow.kind,
            ProviderRow.is_default,
            ProviderRow.drained_at,
            case((listens, ListenerRow.connected_since)).label("connected_since"),
            case((listens, ListenerRow.problem), else_="No calls worker watches it").label("problem"),
        )
        .outerjoin(ListenerRow, ListenerRow.provider == ProviderRow.name)
        .order_by(ProviderRow.name)
    )
    return [
        ProviderState(
            row.name,
            row.kind,
            row.is_default,
            row.drained_at is not None,
            row.connected_since,
            None if row.connected_since is not None else row.problem,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class StorageUse:
    """The stored recordings."""

    recordings: int
    bytes: int


async def measure_storage(session: AsyncSession) -> StorageUse:
    """Reads every recording's row, so ask for it rarely."""
    row = (await session.execute(select(func.count(), func.coalesce(func.sum(RecordingRow.size_bytes), 0)))).one()
    return StorageUse(int(row[0]), int(row[1]))
