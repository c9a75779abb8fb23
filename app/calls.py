"""A call's life. No other module writes a call's row once the call exists, so none changes its status.

`app.call_state` says which moves there are. A move and what follows from it, such as its event, tasks and callbacks,
are written in one transaction.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import call_state, callbacks, changes, metrics, recordings, tasks, tracing, transcripts, usage
from app.call_state import HANGING_UP, NOTE_KEY_PREFIX, REPORT_KEY_PREFIX, Mover
from app.db import after_commit
from app.engine_models import TaskKind
from app.models import Call, CallEventRow
from app.telephony.base import CallEvent, CallStatus, Leg

log = structlog.get_logger()

_DIALING, _CONNECTING = "dialing", "connecting"
_HANGUP_SECONDS = 30.0
"""How long a provider may take to report the end of a call after it was asked to end it."""

# Dialing: each leg once


@dataclass(frozen=True, slots=True)
class DialedCall:
    """What a worker needs to dial a leg of the call. Numbers are as the database has them."""

    customer_number: str
    agent_number: str
    did: str | None
    provider: str
    record: bool
    age_seconds: float
    """Since the call could have been dialed."""


_DIALED_COLUMNS = (
    Call.customer_number,
    Call.agent_number,
    Call.did,
    Call.provider,
    Call.record,
    func.extract("epoch", func.now() - func.coalesce(Call.dial_after, Call.created_at)).label("age_seconds"),
)


async def start_dialing(
    session: AsyncSession, call_id: str, token: UUID, *, answer_timeout_seconds: float
) -> DialedCall | None:
    """Move a queued call to `dialing`. None if it is not queued any more: somebody dialed or canceled it."""
    moving = (
        update(Call)
        .where(
            Call.id == call_id,
            Call.status.in_(call_state.sources(CallStatus.DIALING, Mover.DIALER)),
            Call.dial_token.is_(None),
        )
        .values(
            status=CallStatus.DIALING,
            dial_token=token,
            dialed_at=func.now(),
            expires_at=func.now() + timedelta(seconds=answer_timeout_seconds),
        )
        .returning(*_DIALED_COLUMNS)
    )
    row = (await session.execute(moving)).one_or_none()
    if row is None:
        return None
    _record(session, call_id, CallEvent(_DIALING, CallStatus.DIALING, datetime.now(UTC)))
    return _dialed_call(row)


async def has_lost_reference(session: AsyncSession, call_id: str) -> bool:
    """Whether the call is live and was dialed, and its reference is not known."""
    is_lost = (Call.dialed_at.is_not(None), Call.ended_at.is_(None), Call.provider_reference.is_(None))
    return await session.scalar(select(Call.id).where(Call.id == call_id, *is_lost)) is not None


async def find_dialed(session: AsyncSession, call_id: str) -> DialedCall | None:
    """The live call, once it was dialed."""
    query = select(*_DIALED_COLUMNS).where(Call.id == call_id, Call.dialed_at.is_not(None), Call.ended_at.is_(None))
    row = (await session.execute(query)).one_or_none()
    return None if row is None else _dialed_call(row)


def _dialed_call(row: Any) -> DialedCall:
    return DialedCall(row.customer_number, row.agent_number, row.did, row.provider, row.record, float(row.age_seconds))


def start_reported(call: Call, *, answer_timeout_seconds: float) -> None:
    """Move a new call that only another system has to `dialing`. It times out if no report of its end comes."""
    call.status = CallStatus.DIALING
    call.dialed_at = datetime.now(UTC)
    call.expires_at = call.dialed_at + timedelta(seconds=answer_timeout_seconds)


async def return_to_queue(session: AsyncSession, call_id: str, token: UUID, *, reason: str) -> bool:
    """Move a call that is dialing back to `queued`. False if the dial attempt with this token no longer counts."""
    moving = (
        update(Call)
        .where(
            Call.id == call_id,
            Call.status.in_(call_state.sources(CallStatus.QUEUED, Mover.DIALER)),
            Call.dial_token == token,
        )
        .values(status=CallStatus.QUEUED, dial_token=None, dialed_at=None, expires_at=None)
        .returning(Call.id)
    )
    if await session.scalar(moving) is None:
        return False
    await session.execute(delete(CallEventRow).filter_by(call_id=call_id, key=_DIALING))
    await _record_once(session, call_id, key="waiting", detail=reason)
    return True


async def wait_until(session: AsyncSession, call_id: str, at: datetime, why: str) -> None:
    """A queued call is not to be dialed before this."""
    await session.execute(update(Call).where(Call.id == call_id).values(dial_after=at))
    await _record_once(session, call_id, key="waits_for_hours", detail=why)


async def start_connecting(session: AsyncSession, call_id: str, *, answer_timeout_seconds: float) -> DialedCall | None:
    """Mark the customer's leg as dialed, while the agent waits. None if it was dialed before, or the agent left."""
    marking = (
        update(Call)
        .where(Call.id == call_id, Call.status == CallStatus.RINGING, Call.customer_dialed_at.is_(None))
        .values(customer_dialed_at=func.now(), expires_at=func.now() + timedelta(seconds=answer_timeout_seconds))
        .returning(*_DIALED_COLUMNS)
    )
    row = (await session.execute(marking)).one_or_none()
    if row is None:
        return None
    _record(session, call_id, CallEvent(_CONNECTING, CallStatus.RINGING, datetime.now(UTC), leg=Leg.CUSTOMER))
    return _dialed_call(row)


async def save_reference(session: AsyncSession, call_id: str, token: UUID, reference: str) -> bool:
    """Save the provider's reference of the call, if the dial attempt with this token counts. Returns whether it does
    and the call is still live."""
    other = aliased(Call)
    provider = select(other.provider).where(other.id == call_id).scalar_subquery()
    # Another call of ours found this reference when it was looked up. What the provider itself answers counts more.
    mistaken = update(Call).where(Call.provider == provider, Call.provider_reference == reference, Call.id != call_id)
    for lost in await session.scalars(mistaken.values(provider_reference=None).returning(Call.id)):
        log.warning("reference_was_of_another_call", call_id=lost, other=call_id, reference=reference)
    saving = (
        update(Call)
        .where(Call.id == call_id, Call.dial_token == token)
        .values(provider_reference=reference)
        .returning(Call.ended_at)
    )
    row = (await session.execute(saving)).one_or_none()
    return row is not None and row.ended_at is None


async def save_found_reference(session: AsyncSession, call_id: str, reference: str) -> bool:
    """Save the reference under which the provider was found to have the call. False if it is another call's, or the
    provider has named another meanwhile."""
    other = aliased(Call)
    is_taken = (
        select(other.id)
        .where(other.provider == Call.provider, other.provider_reference == reference, other.id != call_id)
        .exists()
    )
    is_free = or_(Call.provider_reference.is_(None), Call.provider_reference == reference)
    saving = update(Call).where(Call.id == call_id, is_free, ~is_taken).values(provider_reference=reference)
    return await session.scalar(saving.returning(Call.id)) is not None


# Events


async def apply_events(
    session: AsyncSession,
    call_id: str,
    events: Iterable[CallEvent],
    *,
    max_call_seconds: float,
    by: Mover = Mover.EVENT,
) -> CallStatus | None:
    """Change the call by these events, oldest first. Each counts once, and only if its move is in `call_state.MOVES`.

    Locks the call's row. Returns the status that the call has then, or None if there is no such call.
    """
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None:
        log.warning("event_for_unknown_call", call_id=call_id)
        return None
    known = select(CallEventRow).where(CallEventRow.call_id == call_id)
    recorded = {row.key: row for row in await session.scalars(known)}
    for event in events:
        if event.key in recorded:
            _correct(call, recorded[event.key], event)
            continue
        current = CallStatus(call.status)
        moves = call_state.may_move(current, event.status, by)
        if not moves and not call_state.may_note(current, event.status):
            log.info("event_refused", call_id=call_id, status=current, reported=event.status, key=event.key)
            continue
        recorded[event.key] = _record(session, call_id, event)
        _keep_first_times(call, event)
        if moves:
            await _move(session, call, event, max_call_seconds)
        if event.agent_waiting:
            await tasks.add(session, TaskKind.CONNECT, call_id)
    return CallStatus(call.status)


async def hang_up(session: AsyncSession, call_id: str, why: str) -> None:
    """Have the provider end a call that is in progress. The provider then reports the end."""
    call = await session.get(Call, call_id, with_for_update=True, populate_existing=True)
    if call is None or CallStatus(call.status) != CallStatus.IN_PROGRESS:
        return
    if await session.scalar(select(CallEventRow.id).filter_by(call_id=call_id, key=HANGING_UP)) is None:
        _record(session, call_id, CallEvent(HANGING_UP, CallStatus.IN_PROGRESS, datetime.now(UTC), detail=why))
        call.expires_at = datetime.now(UTC) + timedelta(seconds=_HANGUP_SECONDS)
    await tasks.add(session, TaskKind.HANGUP, call_id)


async def add_note(session: AsyncSession, call_id: str, text: str) -> None:
    """Add a line to the call's history, such as what could not be read. The same text is added once.

    The caller holds the call's lock.
    """
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    await _record_once(session, call_id, key=f"{NOTE_KEY_PREFIX}{digest}", detail=text)


# Facts beside the status


@dataclass(frozen=True, slots=True)
class ReportedFacts:
    """What a report adds to a call. None adds nothing."""

    recording_url: str | None = None
    agent_number: str | None = None
    did: str | None = None
    seconds: int | None = None
    talk_seconds: int | None = None
    hangup_cause: str | None = None


async def save_reported_facts(session: AsyncSession, call: Call, facts: ReportedFacts) -> None:
    """Overwrite these facts of the call. The caller holds the call's lock."""
    for column, value in (
        ("recording_url", facts.recording_url),
        ("agent_number", facts.agent_number),
        ("did", facts.did),
        ("reported_seconds", facts.seconds),
        ("reported_talk_seconds", facts.talk_seconds),
        ("hangup_cause", facts.hangup_cause),
    ):
        if value is not None:
            setattr(call, column, value)
            changes.note(session, call.id)
    await session.flush()


async def end_by_report(
    session: AsyncSession,
    call: Call,
    end: CallStatus,
    *,
    leg: Leg | None,
    hangup_cause: str | None,
    max_call_seconds: float,
) -> None:
    """End the call as another system reports it. Does nothing if such a report may not make the move."""
    was_answered = call.answered_at is not None  # our provider saw the talk, and may have recorded it
    may_be_recorded = end not in call_state.UNANSWERED | {CallStatus.FAILED} and call.recording_url is not None
    event = CallEvent(
        f"{REPORT_KEY_PREFIX}{end}",
        end,
        datetime.now(UTC),
        leg=leg,
        hangup_cause=hangup_cause,
        has_recording=was_answered or may_be_recorded,
    )
    await apply_events(session, call.id, [event], max_call_seconds=max_call_seconds, by=Mover.REPORT)


async def remove_recording_urls(session: AsyncSession, call_ids: Sequence[str]) -> None:
    """Remove the recordings' URLs, which reports named."""
    await session.execute(update(Call).where(Call.id.in_(call_ids)).values(recording_url=None))


async def remove_callback_url(session: AsyncSession, call_id: str) -> None:
    """Send no more callbacks about this call."""
    await session.execute(update(Call).where(Call.id == call_id).values(callback_url=None))


async def _move(session: AsyncSession, call: Call, event: CallEvent, max_call_seconds: float) -> None:
    if call.status == CallStatus.TIMED_OUT and _has_conversation(call, event):
        await transcripts.reopen(session, call.id)
    log.info("call_moved", call_id=call.id, before=call.status, status=event.status, cause=event.hangup_cause)
    call.status = event.status
    after_commit(session, tracing.call_moved, call.id, call.traceparent, event.status, event.at)
    if event.status == CallStatus.IN_PROGRESS:
        call.answered_at = event.at
        if not call.only_reported:
            ordered_at = call.dial_after or call.created_at
            after_commit(session, metrics.call_answered, call.provider, (event.at - ordered_at).total_seconds())
        call.expires_at = datetime.now(UTC) + timedelta(seconds=max_call_seconds)
    if event.status in call_state.TERMINAL:
        await _end(session, call, event)


def _keep_first_times(call: Call, event: CallEvent) -> None:
    """When the first telephone rang, and when the agent answered, as far as events tell."""
    if event.status not in (CallStatus.RINGING, CallStatus.IN_PROGRESS):
        return
    call.rang_at = call.rang_at or event.at
    if event.leg is not Leg.AGENT or not event.key.endswith(":ringing"):
        call.agent_answered_at = call.agent_answered_at or event.at


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
    changes.note(session, call_id)
    return row


async def _record_once(session: AsyncSession, call_id: str, *, key: str, detail: str) -> None:
    """Record an event in the call's present status, unless there is one with this key."""
    changes.note(session, call_id)
    status = select(Call.status).where(Call.id == call_id).scalar_subquery()
    await session.execute(
        insert(CallEventRow)
        .values(call_id=call_id, key=key, status=status, detail=detail, happened_at=func.now())
        .on_conflict_do_nothing()
    )


def _correct(call: Call, known: CallEventRow, event: CallEvent) -> None:
    """Give an event that was noticed late its true time. An end keeps its time, because clients have received it."""
    if known.late and not event.late and event.status not in call_state.TERMINAL:
        known.late, known.happened_at = False, event.at
        if event.status == CallStatus.IN_PROGRESS and call.ended_at is None:
            call.answered_at = event.at


async def _end(session: AsyncSession, call: Call, event: CallEvent) -> None:
    call.ended_at = event.at
    call.hangup_cause = event.hangup_cause
    call.ended_by = event.ended_by
    call.failure = event.detail
    provider = metrics.REPORTED if call.only_reported else call.provider
    after_commit(session, metrics.call_ended, provider, event.status, call.user_id)
    if event.talk_seconds is not None and call.reported_talk_seconds is None:
        call.reported_talk_seconds = int(event.talk_seconds)
    await tasks.discard(session, TaskKind.TRACK, call.id)
    if not call.only_reported:
        # The other leg may still be up. A call that went back to the queue may have left something behind, too.
        await tasks.add(session, TaskKind.HANGUP, call.id)
    if _is_recorded(call, event):
        await recordings.expect(session, call.id)
    await callbacks.notify_end(session, call.id)
    if not _has_conversation(call, event):
        why = call_state.WHY_NO_TRANSCRIPT[event.status] if call.record else call_state.NOT_RECORDED
        await transcripts.fail(session, call.id, event.detail or why)
    if call.answered_at is not None and not call.only_reported:
        talked = call.reported_talk_seconds or (event.at - call.answered_at).total_seconds()
        await usage.add_talk(session, call.user_id, event.at, max(0.0, talked))


def _is_recorded(call: Call, event: CallEvent) -> bool:
    return (event.has_recording and call.record) or call.recording_url is not None


def _has_conversation(call: Call, event: CallEvent) -> bool:
    """Whether this end's recording can hold a conversation. Some systems attach an empty one to unanswered calls."""
    if event.status in call_state.UNANSWERED:
        return False
    # The event may not know of the recording that an earlier report named.
    if event.has_recording and call.record:
        return True
    return call.recording_url is not None and event.status != CallStatus.FAILED
