"""Call reports: what another system says about a call. For systems that no adapter can drive.

A report is about a call that was ordered here, if it names the call's id, or about a call that only the other system
has, such as an inbound call. The first reported end counts. Later reports only add what was not known.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_ids, call_state, call_views, calls, dids, recordings, report_fields, transcripts
from app.call_views import CallView
from app.calls import ReportedFacts
from app.errors import NoSuchCall, NotYourCall, NotYourNumber, ValidationFailed
from app.models import Call, CallType, Did, User
from app.new_calls import NewReportedCall, create_reported_call
from app.numbers import Callee, PhoneNumber, digits_of
from app.settings import Settings
from app.telephony.base import CallStatus, Leg

_REPEATED = timedelta(minutes=10)
"""How long after the end a report without a time may be a repeat. After that, it is of another call."""

_LATE = timedelta(hours=1)
"""How long after a timeout a report without a time may be of the call that timed out."""

_SAME_SECONDS = 2
"""How much two systems may differ on the length of one call."""

_LONGEST_LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CallLogReport:
    """What another system says about a call. `call_date` is as `report_fields.read_date` returns it."""

    customer_number: PhoneNumber | None
    """None: it could not be read, and `call_id` names the call."""
    status: str
    call_id: str | None = None
    agent_number: Callee | None = None
    did: PhoneNumber | None = None
    call_type: str | None = None
    call_date: str | None = None
    seconds: int | None = None
    talk_seconds: int | None = None
    hangup_cause: str | None = None
    recording_url: str | None = None
    leg: Leg | None = None
    """The leg that the report is about, if it says so."""
    notes: tuple[str, ...] = ()
    """What could not be read, for the call's history."""


async def apply_report(
    session: AsyncSession, user_id: str | None, report: CallLogReport, settings: Settings
) -> CallView:
    """Change a call by this report, and return the call.

    `user_id` is the user who reports, and who may report only their own calls. None: the telephony provider reports.
    Raises `NoSuchCall`, `NotYourCall`, `NotYourNumber`, `ValidationFailed`.
    """
    report = _without_foreign_id(report, user_id)
    call = await _get_call(session, user_id, report, settings)
    before = await _get_view(session, call)
    is_over = call.ended_at is not None and call.status != CallStatus.TIMED_OUT
    is_new_url = report.recording_url is not None and report.recording_url != call.recording_url
    facts, contradictions = _compare(call, before, report, is_over=is_over)
    await calls.save_reported_facts(session, call, facts)
    await calls.add_note(session, call.id, _summary(call, report))

    end = _end_of(call, report)
    if end in call_state.UNANSWERED and report.talk_seconds:
        contradictions.append(f"Reported as {end}, and with an answer_duration of {report.talk_seconds} s")
    if is_over:
        if end is not None and end not in (call.status, CallStatus.ENDED):
            contradictions.append(f"Reported as {end}, after the call had ended as {call.status}. Not changed")
        await _maybe_fetch(session, call, is_new_url=is_new_url)
    elif end is not None:
        if call.status == CallStatus.IN_PROGRESS and end is not CallStatus.COMPLETED:
            if end is not CallStatus.ENDED:
                contradictions.append(f"Reported as {end}, although both were talking. It ended as completed")
            end = CallStatus.COMPLETED
        await calls.end_by_report(
            session,
            call,
            end,
            leg=_leg_of(call, report),
            hangup_cause=_hangup_cause(report),
            max_call_seconds=settings.max_call_seconds,
        )
    for note in (*report.notes, *contradictions):
        await calls.add_note(session, call.id, note)
    return await _get_view(session, call)


async def _get_view(session: AsyncSession, call: Call) -> CallView:
    await session.flush()
    view = await call_views.find(session, call.id)
    assert view is not None
    return view


def _without_foreign_id(report: CallLogReport, user_id: str | None) -> CallLogReport:
    """Drop an id that is not ours. The name `customer_crm_id` invites a CRM's own id of the customer. Then the user who
    reports, or the DID, decides whose call it is."""
    is_foreign = report.call_id is not None and not call_ids.is_call_id(report.call_id)
    has_owner = user_id is not None or report.did is not None
    if not is_foreign or not has_owner or report.customer_number is None:
        return report
    note = "Left out of a report: customer_crm_id: is no call_id of this server"
    return replace(report, call_id=None, notes=(*report.notes, note))


def _compare(call: Call, before: CallView, report: CallLogReport, *, is_over: bool) -> tuple[ReportedFacts, list[str]]:
    """What the report adds to the call, and what in it contradicts the call. A call that is over stays as it is."""
    contradictions: list[str] = []
    of_agent = _leg_of(call, report) is Leg.AGENT
    if report.customer_number is not None and not of_agent and report.customer_number.digits != call.customer_number:
        contradictions.append("Reported with another customer_number than the call's, which stays")

    def length(name: str, known: int | None, new: int | None) -> int | None:
        # Systems report 0 while they do not know the length.
        if new is not None and (not known or (new and not is_over)):
            return new
        if new is not None and known is not None and (new == 0 or abs(new - known) > _SAME_SECONDS):
            contradictions.append(f"Reported {name} {new} s. {known} s was known, and stays")
        return None

    seconds = length("duration", before.seconds, report.seconds)
    talk_seconds = length("answer_duration", before.talk_seconds, None if of_agent else report.talk_seconds)
    cause = _hangup_cause(report) if is_over else None
    if cause is not None and call.hangup_cause not in (None, cause):
        contradictions.append(f"Reported hangup_cause {cause}. {call.hangup_cause} was known, and stays")
    facts = ReportedFacts(
        recording_url=report.recording_url,
        agent_number=None if call.agent_number else digits_of(report.agent_number),
        did=None if call.did else digits_of(report.did),
        seconds=seconds,
        talk_seconds=talk_seconds,
        hangup_cause=None if call.hangup_cause else cause,
    )
    return facts, contradictions


def _hangup_cause(report: CallLogReport) -> str | None:
    return report.hangup_cause and report.hangup_cause.upper()


def _end_of(call: Call, report: CallLogReport) -> CallStatus | None:
    """The end of the call that the report describes. None: the call goes on."""
    end = report_fields.read_status(report.status)
    if _leg_of(call, report) is Leg.AGENT and end not in call_state.UNANSWERED | {CallStatus.FAILED}:
        return None  # the agent's leg was answered or is over, which says nothing about the customer's
    if end is CallStatus.TIMED_OUT and call.status == CallStatus.IN_PROGRESS:
        return None
    return end


def _leg_of(call: Call, report: CallLogReport) -> Leg | None:
    """The leg that the report is about. If a system reports each leg alone, the agent's report names the agent as the
    person who was called."""
    if report.leg is None and report.customer_number is not None:
        called, agent = report.customer_number.digits, call.agent_number or digits_of(report.agent_number)
        return Leg.AGENT if called == agent and called != call.customer_number else None
    return report.leg


def _summary(call: Call, report: CallLogReport) -> str:
    """The report's own words."""
    leg = _leg_of(call, report)
    return f"Reported as “{report.status}”" + (f" of the {leg}'s leg" if leg is not None else "")


async def _maybe_fetch(session: AsyncSession, call: Call, *, is_new_url: bool) -> None:
    """Fetch the recording of a call that is over, if an earlier report named none, or a URL without a recording."""
    if call.recording_url is None or await recordings.find(session, call.id) is not None:
        return
    if is_new_url or not await recordings.is_wanted(session, call.id):
        if not (await _get_view(session, call)).is_unanswered:
            await transcripts.reopen(session, call.id)
        await recordings.expect(session, call.id)


async def _get_call(session: AsyncSession, user_id: str | None, report: CallLogReport, settings: Settings) -> Call:
    if report.call_id is None:
        return await _get_or_create(session, user_id, report, settings)
    if not call_ids.is_call_id(report.call_id):
        raise NoSuchCall
    call = await session.get(Call, report.call_id, with_for_update=True, populate_existing=True)
    if call is None:
        raise NoSuchCall
    if user_id is not None and call.user_id != user_id:
        raise NotYourCall
    return call


async def _get_or_create(session: AsyncSession, user_id: str | None, report: CallLogReport, settings: Settings) -> Call:
    """The call that only reports describe: the known one, or a new one."""
    assert report.customer_number is not None
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
    # Reports about the same number and customer wait here for each other. The next one finds the call that this one
    # adds.
    subject = f"{owner_id}\n{report.did or ''}\n{report.customer_number}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(subject, 0))))
    known = await _find_known(session, owner_id, report)
    return known or await _add(session, owner_id, did, report, report.customer_number, settings)


async def _find_known(session: AsyncSession, owner_id: str, report: CallLogReport) -> Call | None:
    """The call of an earlier report: the one of the same date and time, or without a time the newest one that may be
    the same."""
    query = (
        select(Call)
        .where(
            Call.user_id == owner_id,
            Call.customer_number == str(report.customer_number),
            Call.did.is_not_distinct_from(digits_of(report.did)),
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
    return (
        call
        if call is not None and (report_fields.tells_calls_apart(report.call_date) or _may_be_same_call(call, report))
        else None
    )


def _may_be_same_call(call: Call, report: CallLogReport) -> bool:
    """Whether a report without a time may be about this call: the call is live, or ended shortly before in the same
    way."""
    if call.ended_at is None:
        return True
    ago = datetime.now(UTC) - call.ended_at
    if call.status == CallStatus.TIMED_OUT:
        return ago < _LATE
    if report.recording_url is not None and call.recording_url is not None:
        same = report.recording_url == call.recording_url
    else:
        same = not report.seconds or not call.reported_seconds or report.seconds == call.reported_seconds
    end = report_fields.read_status(report.status)
    # Systems say Answered when the call is answered, and completed when it is over.
    same_end = end == call.status or {end, call.status} == {CallStatus.COMPLETED, CallStatus.ENDED}
    return ago < _REPEATED and same and same_end


async def _add(
    session: AsyncSession,
    owner_id: str,
    did: Did | None,
    report: CallLogReport,
    customer_number: PhoneNumber,
    settings: Settings,
) -> Call:
    owner = select(User.id).where(User.id == owner_id).with_for_update(read=True, key_share=True)
    if await session.scalar(owner) is None:  # the user was erased while we waited
        raise ValidationFailed("did: this number is nobody's any more")
    inbound = report_fields.is_inbound(report.call_type)
    reported = NewReportedCall(
        user_id=owner_id,
        customer_number=customer_number.digits,
        agent_number=digits_of(report.agent_number),
        did=digits_of(report.did),
        did_id=did.id if did else None,
        call_type=CallType.INBOUND if inbound else CallType.CLICK_TO_CALL,
        callback_url=did.inbound_callback_url if did and inbound else None,
        date=report.call_date,
        transcript=did is not None and did.inbound_transcript and inbound,
    )
    return await create_reported_call(session, reported, answer_timeout_seconds=settings.answer_timeout_seconds)
