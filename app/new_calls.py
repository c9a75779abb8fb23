"""Creating calls: those that clients order, and those that only another system reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app import calls, dids, tasks, transcripts
from app.db import Compiled, Database
from app.errors import InactiveUser, InvalidToken
from app.models import Call, CallType, Queue, TaskKind, TranscriptRow, TranscriptStatus
from app.numbers import Callee, PhoneNumber, digits_of
from app.security import Claims


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call as its client ordered it."""

    customer_number: PhoneNumber
    agent_number: Callee
    did: PhoneNumber | None = None
    """The rented number whose channel the call takes, and which both people are shown. None: the server's number."""
    shown: PhoneNumber | None = None
    """A number to show that is not rented. Only the operator of the server can ask for it."""
    callback_url: str | None = None
    transcript: bool = True
    language: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedCall:
    """A call that is queued."""

    id: str
    warning: str | None = None
    """Says that the DID has no free channel. The call is accepted nevertheless."""


# One statement and one round trip: check the login, create the call, its first event, its transcript and its dial task.
_CREATE = text("""
WITH caller AS (
    SELECT users.id, users.is_active
    FROM login_sessions JOIN users ON users.id = login_sessions.user_id
    WHERE login_sessions.id = :session_id AND users.id = :user_id
      AND login_sessions.expires_at > now() AND (login_sessions.revoked_at IS NULL OR NOT users.is_active)
), call AS (
    INSERT INTO calls (id, user_id, customer_number, agent_number, did, did_id, callback_url, language)
    SELECT :call_id, id, :customer_number, :agent_number, CAST(:did AS text), CAST(:did_id AS text),
           CAST(:callback_url AS text), CAST(:language AS text)
    FROM caller WHERE is_active
    RETURNING id, user_id
), event AS (
    INSERT INTO call_events (call_id, key, status, happened_at) SELECT id, 'queued', 'queued', now() FROM call
), transcript AS (
    INSERT INTO transcripts (id, call_id, user_id, status)
    SELECT :transcript_id, id, user_id, CAST(:transcript_status AS text) FROM call
), task AS (
    INSERT INTO tasks (kind, queue, call_id) SELECT 'dial', 'calls', id FROM call RETURNING id
)
SELECT caller.is_active, (SELECT id FROM task) AS task_id FROM caller
""")
_CREATE_COMPILED = Compiled(_CREATE)


async def create_call(db: Database, hints: tasks.Hints, claims: Claims, order: NewCall) -> CreatedCall:
    """Create a call for the user and queue it. It is committed when this returns.

    Raises `InvalidToken` when the login has ended, `InactiveUser`, and for a DID what `dids.reserve` raises.
    """
    if order.did is None:
        values = _values(claims, order, None)
        hints.send(_dial_task(await db.fetch_one(_CREATE_COMPILED, values)))
        return CreatedCall(values["call_id"])
    async with db.transaction() as session:
        reserved = await dids.reserve(session, claims.user_id, order.did)
        values = _values(claims, order, reserved)
        row = (await session.execute(_CREATE, values)).mappings().one_or_none()
        tasks.hint_after_commit(session, _dial_task(row))
    return CreatedCall(values["call_id"], reserved.warning)


def _values(claims: Claims, order: NewCall, reserved: dids.Reservation | None) -> dict[str, Any]:
    return {
        "session_id": claims.session_id,
        "user_id": claims.user_id,
        "call_id": calls.new_call_id(),
        "customer_number": order.customer_number.digits,
        "agent_number": order.agent_number.digits,
        "did": digits_of(order.did or order.shown),
        "did_id": reserved.did_id if reserved else None,
        "callback_url": order.callback_url,
        "language": order.language,
        "transcript_id": transcripts.new_transcript_id(),
        "transcript_status": TranscriptStatus.PENDING if order.transcript else TranscriptStatus.DISABLED,
    }


def _dial_task(row: Mapping[Any, Any] | None) -> tasks.AddedTask:
    """The call's dial task, from the row that `_CREATE` returns."""
    if row is None:
        raise InvalidToken
    if not row["is_active"]:
        raise InactiveUser
    return tasks.AddedTask(row["task_id"], Queue.CALLS)


@dataclass(frozen=True, slots=True)
class NewReportedCall:
    """A call that our provider never had, as its first report describes it. Numbers are E.164 digits."""

    user_id: str
    customer_number: str
    agent_number: str | None
    did: str | None
    did_id: str | None
    call_type: CallType
    callback_url: str | None
    date: str | None
    """As `report_fields.read_date` returns it."""
    transcript: bool


async def create_reported_call(
    session: AsyncSession, reported: NewReportedCall, *, answer_timeout_seconds: float
) -> Call:
    """Create the call, in the session's transaction."""
    call = Call(
        id=calls.new_call_id(),
        user_id=reported.user_id,
        customer_number=reported.customer_number,
        agent_number=reported.agent_number,
        did=reported.did,
        did_id=reported.did_id,
        call_type=reported.call_type,
        callback_url=reported.callback_url,
        only_reported=True,
        reported_date=reported.date,
    )
    calls.start_reported(call, answer_timeout_seconds=answer_timeout_seconds)
    session.add(call)
    await session.flush()
    status = TranscriptStatus.PENDING if reported.transcript else TranscriptStatus.DISABLED
    session.add(
        TranscriptRow(id=transcripts.new_transcript_id(), call_id=call.id, user_id=reported.user_id, status=status)
    )
    await session.flush()
    await tasks.add(session, TaskKind.TRACK, call.id, delay=answer_timeout_seconds)
    return call
