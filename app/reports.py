"""Calls that another system tells of: the door for whatever cannot be an adapter.

A report is about a call that was ordered here (it names the call's id) or about one that only the other system knows,
such as an inbound one. Its first end counts; later reports only fill in what was not known. What comes of a report
goes through `calls.apply_events`, as everything does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_views, calls, dids, numbers, recordings, tasks, transcripts, vendor
from app.call_views import CallView
from app.errors import NoSuchCall, NotYourCall, NotYourNumber, ValidationFailed
from app.models import Call, CallType, Did, TaskKind, Transcript, TranscriptStatus, User
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus

_REPEATED = timedelta(minutes=10)
"""So long after its end a report without a time can be a repeat; later, it is of another call."""

_LATE = timedelta(hours=1)
"""So long after a call timed out, a report without a time can be what it waited for."""

_DIGITS_OF_A_DAY = 8

_LONGEST_LIFE = timedelta(days=1)


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
    elsewhere = report.recording_url is not None and report.recording_url != call.recording_url
    call.recording_url = report.recording_url or call.recording_url
    call.agent_number = call.agent_number or report.agent_number
    call.did = call.did or report.did
    await session.flush()

    status = vendor.reported_status(report.status)
    cause = report.hangup_cause and report.hangup_cause.upper()
    ended_before = call.ended_at is not None and call.status != CallStatus.TIMED_OUT
    if status is not None and not ended_before:
        talked = call.answered_at is not None  # our provider saw it, and may have recorded it
        end = CallEvent(
            f"{call_views.BY_REPORT}{status}",
            status,
            datetime.now(UTC),
            hangup_cause=cause,
            has_recording=call.recording_url is not None or talked,
        )
        await calls.apply_events(session, call.id, [end], max_call_seconds=settings.max_call_seconds, by_report=True)
    elif ended_before:
        call.hangup_cause = cause or call.hangup_cause
        await _maybe_fetch(session, call, elsewhere=elsewhere)
    await session.flush()
    view = await call_views.find(session, call.id)
    assert view is not None
    return view


async def _maybe_fetch(session: AsyncSession, call: Call, *, elsewhere: bool) -> None:
    """The end was told without a recording, or with another place than this one, where it still was not found."""
    if call.recording_url is None or await recordings.find(session, call.id) is not None:
        return
    if elsewhere or not await recordings.is_wanted(session, call.id):
        await transcripts.ask_again(session, call.id)
        await recordings.expect(session, call.id)


async def _find(session: AsyncSession, user_id: str | None, report: Report) -> Call:
    call = await session.get(Call, report.call_id, with_for_update=True, populate_existing=True)
    if call is None:
        raise NoSuchCall
    if user_id is not None and call.user_id != user_id:
        raise NotYourCall
    return call


async def _find_or_add(session: AsyncSession, user_id: str | None, report: Report, settings: Settings) -> Call:
    """The call that only reports tell of: the one that is known already, or a new one."""
    did = None if report.did is None else await dids.find(session, number=report.did)
    if did is not None and user_id is not None and did.user_id != user_id:
        raise NotYourNumber
    owner_id = user_id or (None if did is None else did.user_id)
    if owner_id is None:
        raise ValidationFailed(
            "customer_crm_id or did: the id of a call of this server is required, or a number of one of its users"
            if did is None
            else "did: this number is nobody's. `ringback dids assign` gives it to a user"
        )
    number = did.number if did is not None else report.did
    # Whoever reports of this number and customer at the same time waits here, and then finds what we add.
    told = "\n".join((owner_id, numbers.did_key(number or ""), report.customer_number))
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(told, 0))))
    known = await _known(session, owner_id, number, report)
    return known or await _add(session, owner_id, did, number, report, settings)


async def _known(session: AsyncSession, owner_id: str, number: str | None, report: Report) -> Call | None:
    """The call of an earlier report: that of the same date and time; without a time the newest, if it can be that."""
    query = (
        select(Call)
        .where(
            Call.user_id == owner_id,
            Call.customer_number == report.customer_number,
            Call.did.is_(None) if number is None else Call.did.in_(numbers.spellings(number)),
            Call.reported_date.is_not_distinct_from(report.call_date),
            Call.only_reported,
        )
        .order_by(Call.created_at.desc())
        .limit(1)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if report.call_date is None:
        query = query.where(Call.created_at > func.now() - _LONGEST_LIFE)
    call = (await session.scalars(query)).one_or_none()
    return call if call is not None and (_tells_apart(report.call_date) or _can_be(call, report)) else None


def _tells_apart(date: str | None) -> bool:
    """Whether no two calls of a customer have this date: a day alone does not say which of its calls."""
    return date is not None and sum(map(str.isdigit, date)) > _DIGITS_OF_A_DAY


def _can_be(call: Call, report: Report) -> bool:
    """Whether a report without a time can be of this call: it is not over, or it was over just now, in the same way."""
    if call.ended_at is None:
        return True
    ago = datetime.now(UTC) - call.ended_at
    if call.status == CallStatus.TIMED_OUT:
        return ago < _LATE
    same_recording = report.recording_url is None or call.recording_url in (None, report.recording_url)
    return ago < _REPEATED and same_recording and vendor.reported_status(report.status) == call.status


async def _add(
    session: AsyncSession, owner_id: str, did: Did | None, number: str | None, report: Report, settings: Settings
) -> Call:
    owner = select(User.id).where(User.id == owner_id).with_for_update(read=True, key_share=True)
    if await session.scalar(owner) is None:  # they were being erased, which we waited for
        raise ValidationFailed("did: this number is nobody's any more")
    inbound = (report.call_type or CallType.INBOUND).casefold() == CallType.INBOUND
    now = datetime.now(UTC)
    call = Call(
        id=calls.new_call_id(),
        user_id=owner_id,
        customer_number=report.customer_number,
        agent_number=report.agent_number,
        did=number,
        did_id=did.id if did else None,
        call_type=CallType.INBOUND if inbound else CallType.CLICK_TO_CALL,
        callback_url=did.inbound_callback_url if did and inbound else None,
        only_reported=True,
        reported_date=report.call_date,
        status=CallStatus.DIALING,
        dialed_at=now,
        expires_at=now + timedelta(seconds=settings.answer_timeout_seconds),
    )
    session.add(call)
    await session.flush()
    wanted = did is not None and did.inbound_transcript and inbound
    session.add(
        Transcript(
            id=transcripts.new_transcript_id(),
            call_id=call.id,
            user_id=owner_id,
            status=TranscriptStatus.PENDING if wanted else TranscriptStatus.DISABLED,
        )
    )
    await session.flush()
    await tasks.add(session, TaskKind.TRACK, call.id, delay=settings.answer_timeout_seconds)
    return call
