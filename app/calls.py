"""A call's life, and the only door through which its status changes."""

import hashlib
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import case, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_state, callbacks, dids, recordings, tasks, transcripts
from app.db import Compiled, Database
from app.errors import InactiveUser, InvalidToken, NoSuchCall
from app.models import Call, CallEventRow, Queue, TaskKind, TranscriptStatus
from app.numbers import Callee, PhoneNumber, digits_of
from app.security import Claims
from app.telephony.base import CUSTOMER_DIALED, CallEvent, CallRef, CallStatus, Talk

log = structlog.get_logger()

_HANGING_UP = "hanging_up"
_HANGUP_SECONDS = 30.0
"""How long a provider that was told to end a call may take to report that it did."""

NOTE_KEY_PREFIX = "note:"
"""Prefix of the keys of events that are notes: they move nothing."""

_CALL_ID = re.compile(r"call_[0-9a-z]{16}")
_ID_ALPHABET = string.digits + string.ascii_lowercase


def is_call_id(text: str) -> bool:
    """Whether this can be the id of a call."""
    return _CALL_ID.fullmatch(text) is not None


def new_call_id() -> str:
    """`call_` and 16 of [0-9a-z]."""
    number = secrets.randbits(96)  # of which 16 digits of base 36 hold the last 82
    return "call_" + "".join(_ID_ALPHABET[number // 36**place % 36] for place in range(16))


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call as its client ordered it."""

    customer_number: PhoneNumber
    agent_number: Callee
    did: PhoneNumber | None = None
    """The rented number whose channel it takes, and which both are shown; None: the server's, if it has one."""
    shown: PhoneNumber | None = None
    """A number to show that nobody rents: of whoever has the machine itself."""
    callback_url: str | None = None
    transcript: bool = True
    language: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedCall:
    """A call that is queued."""

    id: str
    warning: str | None = None
    """Of channels that were all taken; the call is accepted all the same."""


# One statement, one round trip: whether the login still counts, the call, its first event, its transcript and the task
# to dial it.
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
    """Queue a call for the user. It is committed when this returns.

    Raises `InvalidToken` when the login has ended and `InactiveUser`; for its number, what `dids.reserve` raises.
    """
    if order.did is None:
        values = _values(claims, order, None)
        hints.send(_added(await db.fetch_one(_CREATE_COMPILED, values)))
        return CreatedCall(values["call_id"])
    async with db.transaction() as session:
        reserved = await dids.reserve(session, claims.user_id, order.did)
        values = _values(claims, order, reserved)
        row = (await session.execute(_CREATE, values)).mappings().one_or_none()
        tasks.hint_after_commit(session, _added(row))
    return CreatedCall(values["call_id"], reserved.warning)


def _values(claims: Claims, order: NewCall, reserved: dids.Reservation | None) -> dict[str, Any]:
    return {
        "session_id": claims.session_id,
        "user_id": claims.user_id,
        "call_id": new_call_id(),
        "customer_number": order.customer_number.digits,
        "agent_number": order.agent_number.digits,
        "did": digits_of(order.did or order.shown),
        "did_id": reserved.did_id if reserved else None,
        "callback_url": order.callback_url,
        "language": order.language,
        "transcript_id": transcripts.new_transcript_id(),
        "transcript_status": TranscriptStatus.PENDING if order.transcript else TranscriptStatus.DISABLED,
    }


def _added(row: Mapping[Any, Any] | None) -> tasks.AddedTask:
    """The task to dial a call, from the answer to its statement."""
    if row is None:
        raise InvalidToken
    if not row["is_active"]:
        raise InactiveUser
    return tasks.AddedTask(row["task_id"], Queue.CALLS)


@dataclass(frozen=True, slots=True)
class LiveCall:
    """What is needed to ask a provider about a call."""

    ref: CallRef
    status: CallStatus
    dialed_at: datetime
    customer_dialed_at: datetime | None
    expires_at: datetime
    being_hung_up: bool
    """The provider was told to end it, and has not reported that yet."""
    only_reported: bool
    """Our provider never had it: another system tells of it."""
    now: datetime
    """The database's clock, by which the others were set."""


async def find_live(session: AsyncSession, call_id: str) -> LiveCall | None:
    """The call, if it was dialled and has not ended."""
    being_hung_up = exists().where(CallEventRow.call_id == Call.id, CallEventRow.key == _HANGING_UP)
    row = (
        await session.execute(
            select(
                Call.status,
                Call.provider_reference,
                Call.dialed_at,
                Call.customer_dialed_at,
                Call.expires_at,
                being_hung_up.label("being_hung_up"),
                Call.only_reported,
                func.now().label("now"),
            ).where(Call.id == call_id)
        )
    ).one_or_none()
    if row is None or row.dialed_at is None or CallStatus(row.status) in call_state.TERMINAL:
        return None
    return LiveCall(
        CallRef(call_id, row.provider_reference),
        CallStatus(row.status),
        row.dialed_at,
        row.customer_dialed_at,
        row.expires_at,
        row.being_hung_up,
        row.only_reported,
        row.now,
    )


async def get_ref(session: AsyncSession, call_id: str) -> CallRef:
    """How to ask the provider about this call."""
    return CallRef(call_id, await session.scalar(select(Call.provider_reference).where(Call.id == call_id)))


@dataclass(frozen=True, slots=True)
class HangupState:
    """What a provider may still hold of a call."""

    ref: CallRef
    ended: bool
    fetch_pending: bool
    """Its recording is still to be fetched."""
    unanswered_seconds: float | None
    """Since a leg was dialled of which nobody noted that the provider took it; None if all were."""


async def get_hangup_state(session: AsyncSession, call_id: str) -> HangupState:
    """What there is to clear up at the provider."""
    owed = tasks.is_pending(TaskKind.FETCH_RECORDING)
    unanswered = func.coalesce(Call.customer_dialed_at, case((Call.provider_reference.is_(None), Call.dialed_at)))
    ago = func.extract("epoch", func.now() - unanswered)
    row = (
        await session.execute(
            select(Call.provider_reference, Call.ended_at, owed.label("owed"), ago.label("ago")).where(
                Call.id == call_id
            )
        )
    ).one()
    return HangupState(
        CallRef(call_id, row.provider_reference), row.ended_at is not None, row.owed, row.ago and float(row.ago)
    )


async def find_talk(session: AsyncSession, call_id: str) -> Talk | None:
    """When the two talked, if it is known to the moment: a talk that was noticed late began before."""
    events = select(CallEventRow.happened_at).filter_by(call_id=call_id)
    dialed = await session.scalar(events.filter_by(key=CUSTOMER_DIALED))
    in_progress = events.filter_by(status=CallStatus.IN_PROGRESS, late=False)
    answered = await session.scalar(in_progress.where(CallEventRow.key != _HANGING_UP))
    ended = await session.scalar(select(Call.ended_at).where(Call.id == call_id))
    if dialed is None or answered is None or ended is None:
        return None
    return Talk((answered - dialed).total_seconds(), (ended - answered).total_seconds())


async def find_recording_url(session: AsyncSession, call_id: str) -> str | None:
    """Where a report says that the call's recording is."""
    return await session.scalar(select(Call.recording_url).where(Call.id == call_id))


async def find_language(session: AsyncSession, call_id: str) -> str | None:
    """The language its client said it would be in."""
    return await session.scalar(select(Call.language).where(Call.id == call_id))


async def apply_events(
    session: AsyncSession,
    call_id: str,
    events: Iterable[CallEvent],
    *,
    max_call_seconds: float,
    by_report: bool = False,
) -> CallStatus | None:
    """Let what was reported, oldest first, change the call: each event once, and only by a legal move.

    Locks the call's row, and adds the tasks that follow in the same transaction. Once a call is dialled nobody else
    changes its status. `by_report`: another system tells, which may also end what we have not begun, and correct what
    had only timed out. Returns the status it has now; None if there is no such call.
    """
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None:
        log.warning("event_for_unknown_call", call_id=call_id)
        return None
    known = select(CallEventRow).where(CallEventRow.call_id == call_id)
    seen = {row.key: row for row in await session.scalars(known)}
    for event in events:
        if event.key in seen:
            _correct(call, seen[event.key], event)
            continue
        current = CallStatus(call.status)
        moves = call_state.may_move(current, event.status, by_report=by_report)
        if not moves and not call_state.may_note(current, event.status):
            log.info("event_refused", call_id=call_id, status=current, reported=event.status, key=event.key)
            continue
        seen[event.key] = _record(session, call_id, event)
        if moves:
            await _move(session, call, event, max_call_seconds)
        if event.agent_waiting:
            await tasks.add(session, TaskKind.CONNECT, call_id)
    return CallStatus(call.status)


async def cancel(session: AsyncSession, call_id: str) -> CallStatus:
    """End the call, whatever it is doing, and return the status it has now: canceled, or the one it had ended in.

    Once both are talking it is hung up instead, and ends as completed when the provider reports that.
    Raises `NoSuchCall`.
    """
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None:
        raise NoSuchCall
    if CallStatus(call.status) == CallStatus.IN_PROGRESS:
        await hang_up(session, call_id, "Canceled")
    elif CallStatus(call.status) not in call_state.TERMINAL:
        canceled = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC), hangup_cause="originator_cancel")
        await apply_events(session, call_id, [canceled], max_call_seconds=0)
    return CallStatus(call.status)


async def hang_up(session: AsyncSession, call_id: str, why: str) -> None:
    """Have a call that is in progress ended by its provider, which then reports the end."""
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None or CallStatus(call.status) != CallStatus.IN_PROGRESS:
        return
    if await session.scalar(select(CallEventRow.id).filter_by(call_id=call_id, key=_HANGING_UP)) is None:
        _record(session, call_id, CallEvent(_HANGING_UP, CallStatus.IN_PROGRESS, datetime.now(UTC), detail=why))
        call.expires_at = datetime.now(UTC) + timedelta(seconds=_HANGUP_SECONDS)
    await tasks.add(session, TaskKind.HANGUP, call_id)


async def add_note(session: AsyncSession, call_id: str, text: str) -> None:
    """Add a line to the call's history that moves nothing: what could not be read, or contradicts what is known.

    The same text is noted once. With the call's lock.
    """
    key = f"{NOTE_KEY_PREFIX}{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"
    status = select(Call.status).where(Call.id == call_id).scalar_subquery()
    await session.execute(
        insert(CallEventRow)
        .values(call_id=call_id, key=key, status=status, detail=text, happened_at=func.now())
        .on_conflict_do_nothing()
    )


async def _move(session: AsyncSession, call: Call, event: CallEvent, max_call_seconds: float) -> None:
    if call.status == CallStatus.TIMED_OUT and _has_conversation(call, event):  # corrected: so may its transcript be
        await transcripts.reopen(session, call.id)
    log.info("call_moved", call_id=call.id, before=call.status, status=event.status, cause=event.hangup_cause)
    call.status = event.status
    if event.status == CallStatus.IN_PROGRESS:
        call.answered_at = event.at
        call.expires_at = datetime.now(UTC) + timedelta(seconds=max_call_seconds)
    if event.status in call_state.TERMINAL:
        await _end(session, call, event)


def _record(session: AsyncSession, call_id: str, event: CallEvent) -> CallEventRow:
    row = CallEventRow(
        call_id=call_id,
        key=event.key,
        status=event.status,
        leg=event.leg,
        hangup_cause=event.hangup_cause,
        detail=event.detail,
        happened_at=event.at,
        late=event.late,
    )
    session.add(row)
    return row


def _correct(call: Call, known: CallEventRow, event: CallEvent) -> None:
    """What was noticed late is told with its moment after all. What the client was told stays as it was."""
    if known.late and not event.late and event.status not in call_state.TERMINAL:
        known.late, known.happened_at = False, event.at
        if event.status == CallStatus.IN_PROGRESS and call.ended_at is None:
            call.answered_at = event.at


async def _end(session: AsyncSession, call: Call, event: CallEvent) -> None:
    call.ended_at = event.at
    call.hangup_cause = event.hangup_cause
    call.ended_by = event.ended_by
    call.failure = event.detail
    if event.talk_seconds is not None and call.reported_talk_seconds is None:
        call.reported_talk_seconds = int(event.talk_seconds)
    await tasks.discard(session, TaskKind.TRACK, call.id)
    if not call.only_reported:
        # Whoever ended it: the other leg is let go, and nothing stays behind at the provider, not even of a call that
        # was waiting in the queue again.
        await tasks.add(session, TaskKind.HANGUP, call.id)
    if event.has_recording or call.recording_url is not None:
        await recordings.expect(session, call.id)
    await callbacks.notify_end(session, call.id)
    if not _has_conversation(call, event):
        await transcripts.fail(session, call.id, event.detail or call_state.WHY_NO_TRANSCRIPT[event.status])


def _has_conversation(call: Call, event: CallEvent) -> bool:
    """Whether the recording of this end can hold one. Systems attach an empty one to calls that nobody answered."""
    if event.status in call_state.UNANSWERED:
        return False
    # Who tells of the end may not know of the recording that a report named before.
    return event.has_recording or (call.recording_url is not None and event.status != CallStatus.FAILED)
