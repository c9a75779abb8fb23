"""Lanes: tasks of many users that wait for the same thing. Users take turns in a lane.

All dial tasks of one provider are a lane, and so are all transcriptions and all callbacks. The next task of a lane is
a task of the user whose last turn is longest ago. So one user's 2,000 calls delay the single call of another by one
call. Of one user's tasks, that of the first `Priority` goes first, and among those the one that has been due for
longest. So a user's recordings that are transcribed again do not delay the transcript of a call that has just ended.

A hint names a lane, and brings a worker to the task whose turn it is, not to the one that caused the hint.

A lane of dial tasks can have a gate: how many calls the provider may have up at once, and its pace. All workers share
it. While it is shut, the tasks stay unclaimed, so that it does not matter who waited first.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db import Database
from app.engine_models import Priority, ProviderRow, Queue, Task, TaskKind
from app.models import Call
from app.tasks import CLOCK_SLACK, LANE_OF, QUEUE_OF, ClaimedTask, claimed_task, dial_lane, is_unclaimed

_FULL_SECONDS = 0.5
"""When to look again at a gate that waits for the end of a call."""
_HANGING_UP_SECONDS = 5.0
"""How long a call that has ended counts as up while its provider is still to be asked to hang up."""
_HELD_SECONDS = 0.05
"""When to look again at a gate that another worker is passing."""

# The users of a lane are found by leaping through the index, however many tasks each has, and so are the due tasks of
# each priority. Rows are locked one by one, in the order of the users' turns, so two workers that claim at once get
# different tasks.
CLAIM = text("""
WITH RECURSIVE member AS (
    (SELECT user_id FROM tasks WHERE lane = :lane ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT user_id FROM tasks WHERE lane = :lane AND user_id > member.user_id ORDER BY user_id LIMIT 1)
    FROM member WHERE member.user_id IS NOT NULL
), in_turn AS MATERIALIZED (
    SELECT member.user_id FROM member LEFT JOIN turns ON turns.lane = :lane AND turns.user_id = member.user_id
    WHERE member.user_id IS NOT NULL
    ORDER BY turns.claimed_at NULLS FIRST
), chosen AS MATERIALIZED (
    SELECT waiting.id, in_turn.user_id FROM in_turn CROSS JOIN LATERAL (
        SELECT due.id FROM generate_series(0, :last_priority) AS priorities(priority) CROSS JOIN LATERAL (
            SELECT id FROM tasks
            WHERE lane = :lane AND user_id = in_turn.user_id AND priority = priorities.priority
              AND due_at <= now() - CAST(:overdue AS interval) AND (lease_until IS NULL OR lease_until < now())
            ORDER BY due_at
            LIMIT :limit
            FOR UPDATE SKIP LOCKED
        ) AS due
        LIMIT (SELECT ceil(CAST(:limit AS numeric) / greatest(count(*), 1)) FROM in_turn)
    ) AS waiting
    LIMIT :limit
), turned AS (
    INSERT INTO turns (lane, user_id, claimed_at)
    SELECT :lane, user_id, clock_timestamp() FROM chosen GROUP BY user_id ORDER BY user_id
    ON CONFLICT (lane, user_id) DO UPDATE SET claimed_at = excluded.claimed_at
)
UPDATE tasks
SET lease_token = gen_random_uuid(), lease_until = now() + CAST(:lease AS interval), attempts = tasks.attempts + 1
FROM chosen WHERE tasks.id = chosen.id
RETURNING tasks.id, tasks.kind, tasks.call_id, tasks.attempts, tasks.lease_token,
    (SELECT provider FROM calls WHERE calls.id = tasks.call_id) AS provider,
    (SELECT traceparent FROM calls WHERE calls.id = tasks.call_id) AS traceparent,
    extract(epoch FROM now() - tasks.created_at) AS age
""")


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """What a worker got of a lane."""

    tasks: list[ClaimedTask]
    shut_seconds: float = 0.0
    """For how long the lane's gate stays shut."""


def lanes_of(queue: Queue, providers: list[str]) -> list[str]:
    """The lanes of a queue's tasks, in an installation with these providers."""
    if queue is Queue.CALLS:
        return [dial_lane(name) for name in providers]
    return [lane for kind, lane in LANE_OF.items() if QUEUE_OF[kind] is queue]


async def claim(
    db: Database, lane: str, *, limit: int, lease_seconds: float, overdue_seconds: float | None = None
) -> LaneClaim:
    """Claim up to `limit` tasks of a lane without a gate. With `overdue_seconds`, only those that were due so long
    ago."""
    async with db.statement() as connection:
        return LaneClaim(await _claim_in_turn(connection, lane, limit, lease_seconds, overdue_seconds))


async def claim_through_gate(db: Database, provider: str, *, limit: int, lease_seconds: float) -> LaneClaim:
    """Claim up to `limit` dial tasks of a provider, as its gate allows.

    While another worker is at the gate, nothing is claimed. Waiting for that worker, which may be frozen, would delay
    the other lanes, too.
    """
    lane = dial_lane(provider)
    async with db.transaction() as session:
        gate = (await session.execute(_GATE.where(ProviderRow.name == provider))).one_or_none()
        if gate is None:
            return LaneClaim([], _HELD_SECONDS)
        if gate.paused is not None and gate.paused > 0:
            return LaneClaim([], float(gate.paused))
        if gate.calls_at_once is not None:
            limit = min(limit, gate.calls_at_once - await _count_up(session, provider))
            if limit <= 0:
                return LaneClaim([], _FULL_SECONDS)
        if gate.pace_calls is None:
            return LaneClaim(await _claim_in_turn(await session.connection(), lane, limit, lease_seconds))
        claimed = await _claim_in_turn(await session.connection(), lane, 1, lease_seconds)
        if not claimed:
            return LaneClaim([])
        pause = timedelta(seconds=gate.pace_seconds / gate.pace_calls)
        passing = update(ProviderRow).where(ProviderRow.name == provider)
        await session.execute(passing.values(next_dial_at=func.clock_timestamp() + pause))
        return LaneClaim(claimed, pause.total_seconds())


_GATE = select(
    ProviderRow.calls_at_once,
    ProviderRow.pace_calls,
    ProviderRow.pace_seconds,
    func.extract("epoch", ProviderRow.next_dial_at - func.clock_timestamp()).label("paused"),
).with_for_update(skip_locked=True, key_share=True)  # a new DID of the provider locks its row, and is not at the gate


async def _count_up(session: AsyncSession, provider: str) -> int:
    """The provider's calls that are up, those of which a leg may still be up, and those that a worker is about to dial.

    In one statement. Between two, a call could leave one group for another, and be counted in neither.
    """
    is_up = (Call.provider == provider, Call.ended_at.is_(None), Call.dialed_at.is_not(None), ~Call.only_reported)
    up = select(func.count()).where(*is_up).scalar_subquery()
    claimed = select(func.count()).where(Task.lane == dial_lane(provider), ~is_unclaimed()).scalar_subquery()
    # The other leg of a call that has just ended is up until it is hung up, and takes a line.
    just_ended = Call.ended_at > func.now() - timedelta(seconds=_HANGING_UP_SECONDS)
    hanging_up = (
        select(func.count(Call.id.distinct()))
        .select_from(Task)
        .join(Call, Call.id == Task.call_id)
        .where(Task.kind == TaskKind.HANGUP, Call.provider == provider, Call.dialed_at.is_not(None), just_ended)
        .scalar_subquery()
    )
    return await session.scalar(select(up + claimed + hanging_up)) or 0


async def _claim_in_turn(
    connection: AsyncConnection, lane: str, limit: int, lease_seconds: float, overdue_seconds: float | None = None
) -> list[ClaimedTask]:
    values = claim_values(lane, limit, lease_seconds, overdue_seconds)
    return [claimed_task(row) for row in await connection.execute(CLAIM, values)]


def claim_values(
    lane: str, limit: int, lease_seconds: float, overdue_seconds: float | None = None
) -> dict[str, object]:
    """The parameters of `CLAIM`."""
    return {
        "lane": lane,
        "limit": limit,
        "overdue": -CLOCK_SLACK if overdue_seconds is None else timedelta(seconds=overdue_seconds),
        "lease": timedelta(seconds=lease_seconds),
        # All tasks of the other lanes have the first priority, and a claim need not look for more.
        "last_priority": max(Priority) if lane == LANE_OF[TaskKind.TRANSCRIBE] else Priority.FRESH,
    }
