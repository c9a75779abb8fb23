"""A call's life, and the only door through which its status changes."""

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_state, tasks, transcripts
from app.db import Database
from app.errors import InactiveUser, InvalidToken
from app.models import Call, CallEventRow, Queue, TaskKind
from app.security import Claims
from app.telephony.base import Accepted, CallEvent, CallOrder, CallRef, CallStatus

log = structlog.get_logger()

_ID_ALPHABET = string.digits + string.ascii_lowercase


def new_call_id() -> str:
    """`call_` and 16 of [0-9a-z]."""
    number = secrets.randbits(96)  # of which 16 digits of base 36 hold the last 82
    return "call_" + "".join(_ID_ALPHABET[number // 36**place % 36] for place in range(16))


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call as its client ordered it; numbers are digits already."""

    customer_number: str
    agent_number: str


# One statement, one round trip: whether the login still counts, the call, its first event, its transcript and the task
# to dial it. Through the ORM the same takes four times the CPU (docs/benchmarks.md).
_CREATE = text("""
WITH caller AS (
    SELECT users.id, users.is_active
    FROM login_sessions JOIN users ON users.id = login_sessions.user_id
    WHERE login_sessions.id = :session_id AND users.id = :user_id
      AND login_sessions.expires_at > now() AND (login_sessions.revoked_at IS NULL OR NOT users.is_active)
), call AS (
    INSERT INTO calls (id, user_id, customer_number, agent_number)
    SELECT :call_id, id, :customer_number, :agent_number FROM caller WHERE is_active
    RETURNING id
), event AS (
    INSERT INTO call_events (call_id, key, status, happened_at) SELECT id, 'queued', 'queued', now() FROM call
), transcript AS (
    INSERT INTO transcripts (id, call_id) SELECT :transcript_id, id FROM call
), task AS (
    INSERT INTO tasks (kind, queue, call_id) SELECT 'dial', 'calls', id FROM call RETURNING id
)
SELECT caller.is_active, (SELECT id FROM task) AS task_id FROM caller
""")


async def create_call(db: Database, hints: tasks.Hints, claims: Claims, order: NewCall) -> str:
    """Queue a call for the user and return its id. It is committed when this returns.

    Raises `InvalidToken` when the login has ended and `InactiveUser`.
    """
    call_id = new_call_id()
    async with db.statement() as connection:
        result = await connection.execute(
            _CREATE,
            {
                "session_id": claims.session_id,
                "user_id": claims.user_id,
                "call_id": call_id,
                "customer_number": order.customer_number,
                "agent_number": order.agent_number,
                "transcript_id": transcripts.new_transcript_id(),
            },
        )
        row = result.one_or_none()
    if row is None:
        raise InvalidToken
    if not row.is_active:
        raise InactiveUser
    hints.send(tasks.AddedTask(row.task_id, Queue.CALLS))
    return call_id


@dataclass(frozen=True, slots=True)
class DialRight:
    """The one right to dial this call. Whoever holds it may let one request leave."""

    order: CallOrder
    token: UUID


async def claim_for_dialing(
    session: AsyncSession, call_id: str, *, answer_timeout: float, track_after: float
) -> DialRight | None:
    """Spend the call's only right to dial. To be committed *before* the request leaves.

    None: somebody dialled, or canceled, before; never dial then. From the same commit on a `track` task watches the
    call, so that it comes to an end even if this process does.
    """
    token = uuid4()
    spending = (
        update(Call)
        .where(Call.id == call_id, Call.status == CallStatus.QUEUED, Call.dial_token.is_(None))
        .values(
            status=CallStatus.DIALING,
            dial_token=token,
            dialed_at=func.now(),
            expires_at=func.now() + timedelta(seconds=answer_timeout),
        )
        .returning(Call.customer_number, Call.agent_number)
    )
    row = (await session.execute(spending)).one_or_none()
    if row is None:
        return None
    _record(session, call_id, CallEvent(key="dialing", status=CallStatus.DIALING, at=datetime.now(UTC)))
    await tasks.add(session, TaskKind.TRACK, call_id, delay=track_after)
    return DialRight(CallOrder(call_id, row.customer_number, row.agent_number), token)


async def save_reference(session: AsyncSession, right: DialRight, accepted: Accepted) -> None:
    """Remember the provider's name for the call. Only the holder of the right to dial can."""
    await session.execute(
        update(Call)
        .where(Call.id == right.order.call_id, Call.dial_token == right.token)
        .values(provider_reference=accepted.reference)
    )


@dataclass(frozen=True, slots=True)
class LiveCall:
    """What is needed to ask a provider about a call."""

    ref: CallRef
    status: CallStatus
    dialed_at: datetime
    expires_at: datetime
    now: datetime
    """The database's clock, by which the other two were set."""


async def get_live(session: AsyncSession, call_id: str) -> LiveCall | None:
    """The call, if it was dialled and has not ended."""
    row = (
        await session.execute(
            select(
                Call.status, Call.provider_reference, Call.dialed_at, Call.expires_at, func.now().label("now")
            ).where(Call.id == call_id)
        )
    ).one_or_none()
    if row is None or row.dialed_at is None or CallStatus(row.status) in call_state.TERMINAL:
        return None
    return LiveCall(
        CallRef(call_id, row.provider_reference),
        CallStatus(row.status),
        row.dialed_at,
        row.expires_at,
        row.now,
    )


async def get_ref(session: AsyncSession, call_id: str) -> CallRef:
    """How to ask the provider about this call."""
    return CallRef(call_id, await session.scalar(select(Call.provider_reference).where(Call.id == call_id)))


async def get_language(session: AsyncSession, call_id: str) -> str | None:
    """The language its client said it would be in."""
    return await session.scalar(select(Call.language).where(Call.id == call_id))


async def apply_events(
    session: AsyncSession, call_id: str, events: Iterable[CallEvent], *, max_call_seconds: float
) -> CallStatus | None:
    """Let what was reported, oldest first, change the call: each event once, and only by a legal move.

    Locks the call's row, and adds the tasks that follow in the same transaction. Once a call is dialled nobody else
    changes its status. Returns the status it has now; None if there is no such call.
    """
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None:
        log.warning("event_for_unknown_call", call_id=call_id)
        return None
    seen = set(await session.scalars(select(CallEventRow.key).where(CallEventRow.call_id == call_id)))
    for event in events:
        if event.key in seen:
            continue
        current = CallStatus(call.status)
        moves = call_state.may_move(current, event.status)
        if not moves and not call_state.may_note(current, event.status):
            log.info("event_refused", call_id=call_id, status=current, reported=event.status, key=event.key)
            continue
        seen.add(event.key)
        _record(session, call_id, event)
        if moves:
            await _move(session, call, event, max_call_seconds)
    return CallStatus(call.status)


async def _move(session: AsyncSession, call: Call, event: CallEvent, max_call_seconds: float) -> None:
    log.info("call_moved", call_id=call.id, before=call.status, status=event.status, cause=event.hangup_cause)
    call.status = event.status
    if event.status == CallStatus.IN_PROGRESS:
        call.answered_at = event.at
        call.expires_at = datetime.now(UTC) + timedelta(seconds=max_call_seconds)
    if event.status in call_state.TERMINAL:
        await _end(session, call, event)


def _record(session: AsyncSession, call_id: str, event: CallEvent) -> None:
    session.add(
        CallEventRow(
            call_id=call_id,
            key=event.key,
            status=event.status,
            leg=event.leg,
            hangup_cause=event.hangup_cause,
            detail=event.detail,
            happened_at=event.at,
        )
    )


async def _end(session: AsyncSession, call: Call, event: CallEvent) -> None:
    call.ended_at = event.at
    call.hangup_cause = event.hangup_cause
    call.ended_by = event.ended_by
    call.failure = event.detail
    if event.has_recording:
        await tasks.add(session, TaskKind.FETCH_RECORDING, call.id)
    else:
        await transcripts.fail(session, call.id, event.detail or call_state.WHY_NO_TRANSCRIPT[event.status])
