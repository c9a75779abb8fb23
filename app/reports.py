"""Calls that another system tells of: the door for whatever cannot be an adapter.

A report is about a call that was ordered here (it names the call's id) or about one that only the other system knows,
such as an inbound one. Its first end counts; later reports only fill in what was not known. What comes of a report
goes through `calls.apply_events`, as everything does.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_views, calls, dids, tasks, transcripts, vendor
from app.call_views import CallView
from app.errors import NoSuchCall, NotYourCall, NotYourNumber, ValidationFailed
from app.models import Call, CallType, Recording, Task, TaskKind, Transcript, TranscriptStatus
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus


@dataclass(frozen=True, slots=True)
class Report:
    """What was said; numbers are digits already."""

    customer_number: str
    status: str
    call_id: str | None = None
    agent_number: str | None = None
    did: str | None = None
    call_type: str | None = None
    call_date: str | None = None
    seconds: int | None = None
    talk_seconds: int | None = None
    hangup_cause: str | None = None
    recording_url: str | None = None


async def take(session: AsyncSession, user_id: str | None, report: Report, settings: Settings) -> CallView:
    """Let the report change its call, and return the call. `user_id`: who reports, and may do so of their own calls
    only; None: the telephony provider.

    Raises `NoSuchCall`, `NotYourCall`, `NotYourNumber`, `ValidationFailed`.
    """
    call = (
        await _find(session, user_id, report)
        if report.call_id
        else await _find_or_add(session, user_id, report, settings)
    )
    call.reported_seconds = report.seconds if report.seconds is not None else call.reported_seconds
    call.reported_talk_seconds = report.talk_seconds if report.talk_seconds is not None else call.reported_talk_seconds
    call.recording_url = report.recording_url or call.recording_url
    call.agent_number = call.agent_number or report.agent_number
    await session.flush()

    status = vendor.reported_status(report.status)
    ended_before = call.ended_at is not None and call.status != CallStatus.TIMED_OUT
    if status is not None and not ended_before:
        talked = call.answered_at is not None  # our provider saw it, and may have recorded it
        cause = report.hangup_cause and report.hangup_cause.upper()
        end = CallEvent(
            f"reported:{status}",
            status,
            datetime.now(UTC),
            hangup_cause=cause,
            has_recording=call.recording_url is not None or talked,
        )
        await calls.apply_events(session, call.id, [end], max_call_seconds=settings.max_call_seconds, by_report=True)
    elif ended_before and report.recording_url:
        await _fetch_late(session, call)
    await session.flush()
    view = await call_views.find(session, call.id)
    assert view is not None
    return view


async def _find(session: AsyncSession, user_id: str | None, report: Report) -> Call:
    call = await session.get(Call, report.call_id, with_for_update=True, populate_existing=True)
    if call is None:
        raise NoSuchCall
    if user_id is not None and call.user_id != user_id:
        raise NotYourCall
    return call


async def _find_or_add(session: AsyncSession, user_id: str | None, report: Report, settings: Settings) -> Call:
    """The call that only reports tell of: the one that looks the same, or a new one."""
    did = None if report.did is None else await dids.find(session, number=report.did)
    if did is not None and user_id is not None and did.user_id != user_id:
        raise NotYourNumber
    owner_id = user_id or (None if did is None else did.user_id)
    if owner_id is None:
        raise ValidationFailed(
            "customer_crm_id or did: the id of a call of this server, or a number of one of its users, is required"
        )
    key = _key(owner_id, report)
    inbound = (report.call_type or "inbound").casefold() == CallType.INBOUND
    adding = (
        insert(Call)
        .values(
            id=calls.new_call_id(),
            user_id=owner_id,
            customer_number=report.customer_number,
            agent_number=report.agent_number,
            did=did.number if did else report.did,
            did_id=did.id if did else None,
            call_type=CallType.INBOUND if inbound else CallType.CLICK_TO_CALL,
            callback_url=did.inbound_callback_url if did and inbound else None,
            report_key=key,
            status=CallStatus.DIALING,
            dialed_at=func.now(),
            expires_at=func.now() + timedelta(seconds=settings.answer_timeout_seconds),
        )
        .on_conflict_do_nothing(index_elements=["report_key"], index_where=Call.report_key.is_not(None))
        .returning(Call.id)
    )
    call_id = await session.scalar(adding)
    if call_id is not None:
        wanted = did is not None and did.inbound_transcript and inbound
        await _add_rest(session, call_id, owner_id, transcript=wanted, settings=settings)
    call = await session.scalar(
        select(Call).where(Call.report_key == key).with_for_update().execution_options(populate_existing=True)
    )
    assert call is not None
    return call


async def _add_rest(
    session: AsyncSession, call_id: str, owner_id: str, *, transcript: bool, settings: Settings
) -> None:
    session.add(
        Transcript(
            id=transcripts.new_transcript_id(),
            call_id=call_id,
            user_id=owner_id,
            status=TranscriptStatus.PENDING if transcript else TranscriptStatus.DISABLED,
        )
    )
    await session.flush()
    await tasks.add(session, TaskKind.TRACK, call_id, delay=settings.answer_timeout_seconds)


def _key(owner_id: str, report: Report) -> str:
    """The same for reports of one call. With its date it is sure; without one, the recording tells calls apart."""
    when = report.call_date or report.recording_url or f"{report.agent_number} {report.seconds}"
    told = "\n".join((owner_id, report.did or "", report.customer_number, when))
    return hashlib.sha256(told.encode()).hexdigest()


async def _fetch_late(session: AsyncSession, call: Call) -> None:
    """The call's end was told without its recording, which a later report brings."""
    stored = await session.scalar(select(Recording.call_id).where(Recording.call_id == call.id))
    owed = await session.scalar(select(Task.id).filter_by(call_id=call.id, kind=TaskKind.FETCH_RECORDING).limit(1))
    if stored is None and owed is None:
        await transcripts.ask_again(session, call.id)
        await tasks.add(session, TaskKind.FETCH_RECORDING, call.id)
