"""The newest dialect, `/api`: calls. Numbers are in `mobile_numbers`, call reports in `call_log`."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, PlainValidator, ValidationInfo, WithJsonSchema, model_validator

from app import call_views, cancellation, transcripts, vendor
from app.api.deps import PREFER, LoggedIn, check_call_id, find_idempotency_key, order_body, read_body, read_news
from app.api.envelope import Envelope, success
from app.api.login import add_login_routes
from app.api.schemas import CallOptions, Number, Switch, UnlessBlank, check_text, errors, number_rules
from app.call_views import CallView, Filters, NumberFilter
from app.cancellation import CancelResult
from app.errors import NoSuchAgent, ValidationFailed
from app.models import TranscriptStatus
from app.numbers import Callee, NumberRules, part_of_number
from app.security import RecordingLinks
from app.settings import Settings
from app.vendor import CallTranscript, Instant, RecordingField, SecondsText, Turn
from app.web.resources import get_resources

router = APIRouter(prefix="/api", tags=["current"])
add_login_routes(router, invalid=422)

_VOICE_AGENT = "AGT_"


@dataclass(frozen=True, slots=True)
class VoiceAgent:
    """An agent that is a program."""

    id: str


def _agent(value: Any, info: ValidationInfo) -> Callee | VoiceAgent:
    written = check_text(value)
    return VoiceAgent(written) if written.startswith(_VOICE_AGENT) else number_rules(info).read_agent(written)


class CurrentClick2CallRequest(CallOptions):
    customer_number: Number
    agent_number: Annotated[
        Callee | VoiceAgent,
        PlainValidator(_agent),
        WithJsonSchema(
            {
                "type": "string",
                "description": "A telephone number, an extension, or a voice agent: AGT_…",
                "examples": ["918888888888"],
            }
        ),
    ]
    transcript: Switch = Field(False, description="Whether a transcript is made")
    agent_config: dict[str, Any] | None = Field(None, description="For voice agents only")

    @model_validator(mode="before")
    @classmethod
    def _ignored_of_voice_agents(cls, sent: Any) -> Any:
        if isinstance(sent, dict) and str(sent.get("agent_number")).startswith(_VOICE_AGENT):
            return {key: value for key, value in sent.items() if key not in ("did", "transcript_language")}
        return sent

    @model_validator(mode="after")
    def _has_did(self) -> "CurrentClick2CallRequest":
        if self.did is None and not isinstance(self.agent_number, VoiceAgent):
            raise ValueError("did: this field is required")
        return self


class CurrentClick2CallData(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: Literal["queued"] = "queued"
    did: str | None = Field(examples=["911140000001"])
    callback_url: str | None
    transcript: bool
    transcript_language: str | None
    warning: str | None = Field(
        description="Says that no channel was free", examples=["Client channel pool exhausted; call accepted"]
    )


class RecentTranscript(BaseModel):
    summary: str
    call_outcome: str = Field(examples=["Interested"])
    history: list[Turn]


class RecentCall(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: str = Field(examples=["Answered"])
    customer_number: str
    agent_number: str | None
    did: str | None
    duration: SecondsText
    answer_duration: SecondsText
    hangup_cause: str | None = Field(examples=["ANSWER"])
    call_type: str = Field(examples=["C2C"])
    transcript_enabled: bool
    transcript_status: str = Field(examples=["ready"])
    recording: RecordingField
    recording_url: str | None
    transcript: RecentTranscript | None
    created_at: Instant
    updated_at: Instant


class RecentFilters(BaseModel):
    """The filters as they were sent. A blank filter is not set."""

    status: Annotated[str | None, UnlessBlank] = Field(None, description="Whatever its case", examples=["Answered"])
    call_type: Annotated[str | None, UnlessBlank] = Field(None, examples=["C2C"])
    transcript_status: Annotated[str | None, UnlessBlank] = Field(None, examples=["ready"])
    customer_number: Annotated[str | None, UnlessBlank] = Field(None, description="A part of it", examples=["99999"])
    agent_number: Annotated[str | None, UnlessBlank] = Field(None, description="A part of it", examples=["88888"])
    did: Annotated[str | None, UnlessBlank] = Field(None, description="A part of it", examples=["1140000001"])
    date_from: Annotated[str | None, UnlessBlank] = Field(
        None, description="A day or an instant", examples=["2026-03-05"]
    )
    date_to: Annotated[str | None, UnlessBlank] = Field(
        None, description="A day or an instant, inclusive", examples=["2026-03-05T10:00:00Z"]
    )


class RecentData(BaseModel):
    total: int
    page: int
    limit: int
    has_more: bool
    filters: RecentFilters
    calls: list[RecentCall]


class RetryData(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    transcript_status: str = Field(examples=["pending"])
    status: str = Field(examples=["Answered"])
    recording: RecordingField


class CancelData(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: str = Field(description="The call's status now", examples=["NoAnswered"])
    result: CancelResult = Field(
        description="`canceled`: nobody talks. `hanging_up`: it is in progress, and its provider was asked to end it. "
        "`ended_before`: there was nothing to cancel"
    )


_CANCEL_MESSAGES = {
    CancelResult.CANCELED: "Call canceled",
    CancelResult.HANGING_UP: "Call is being hung up",
    CancelResult.ENDED_BEFORE: "Call had ended before",
}


@router.post(
    "/calls/click2call",
    summary="Call an agent and a customer, and join them",
    response_model=Envelope[CurrentClick2CallData],
    responses=errors(400, 401, 403, 404, 409, 413, 422, 429),
    openapi_extra=order_body(CurrentClick2CallRequest),
)
async def click2call(request: Request, claims: LoggedIn) -> Response:
    """Queue a call. The agent is rung first, then the customer. Without a free channel the call is accepted, with a
    `warning`."""
    resources = get_resources(request)
    body = await read_body(request, CurrentClick2CallRequest)
    if isinstance(body.agent_number, VoiceAgent):
        raise NoSuchAgent
    order = body.order(
        body.customer_number,
        body.agent_number,
        transcript=body.transcript,
        idempotency_key=find_idempotency_key(request),
    )
    created = await resources.new_calls.create(claims, order)
    data = CurrentClick2CallData(
        call_id=created.id,
        did=body.did and body.did.written,
        callback_url=body.callback_url,
        transcript=body.transcript,
        transcript_language=body.transcript_language,
        warning=created.warning,
    )
    return success("Click2Call request created", data)


@router.get(
    "/calls/recent",
    summary="List your newest calls",
    response_model=Envelope[RecentData],
    responses=errors(400, 401, 422),
)
async def recent(
    request: Request,
    claims: LoggedIn,
    asked: Annotated[RecentFilters, Query()],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
) -> Response:
    """Statuses, types and dates must match whole, numbers in part. Dates are inclusive."""
    resources = get_resources(request)
    total, found = await call_views.recent(
        resources.db, claims.user_id, _filters(asked, resources.numbers), limit=limit, offset=(page - 1) * limit
    )
    data = RecentData(
        total=total,
        page=page,
        limit=limit,
        has_more=page * limit < total,
        filters=asked,
        calls=[_recent_call(call, resources.links, resources.settings) for call in found],
    )
    return success("Recent call logs fetched", data)


@router.get(
    "/calls/{call_id}/transcript",
    summary="Poll for a call's transcript",
    response_model=Envelope[CallTranscript],
    responses=errors(400, 401, 403, 404),
    openapi_extra={"parameters": [PREFER]},
)
async def get_transcript(request: Request, call_id: str, claims: LoggedIn) -> Response:
    """Numbers are masked. The link to the recording is new each time."""
    resources = get_resources(request)
    await check_call_id(resources, claims, call_id)
    call = await read_news(
        request,
        claims,
        call_id,
        partial(call_views.get_own, resources.db, claims.user_id, call_id),
        shown=_shown_without_link,
        is_final=_is_complete,
    )
    data = vendor.call_transcript(call, recording_link(call, resources.links, resources.settings))
    if call.transcript_status == TranscriptStatus.READY:
        return success("Transcript found", data)
    if call.transcript_status == TranscriptStatus.FAILED:
        return success("Transcript processing failed", data)
    return success("Transcript not available yet", data)


@router.post(
    "/calls/{call_id}/transcript/retry",
    summary="Make a failed transcript again",
    response_model=Envelope[RetryData],
    responses=errors(400, 401, 403, 404, 409),
)
async def retry_transcript(request: Request, call_id: str, claims: LoggedIn) -> Response:
    """Makes the transcript again, from the stored recording. Callbacks report its end again."""
    resources = get_resources(request)
    await check_call_id(resources, claims, call_id)
    call = await transcripts.retry(resources.db, claims.user_id, call_id)
    data = RetryData(
        call_id=call_id,
        transcript_status="pending",
        status=vendor.SHOWN_STATUS[call.status],
        recording=recording_link(call, resources.links, resources.settings),
    )
    return success("Transcript retry queued", data)


@router.post(
    "/calls/{call_id}/cancel",
    summary="Cancel a call",
    response_model=Envelope[CancelData],
    responses=errors(400, 401, 403, 404, 409),
)
async def cancel(request: Request, call_id: str, claims: LoggedIn) -> Response:
    """Never dials a call that is queued, and ends one that is up, if its telephony provider can do that. If it cannot,
    the answer is 409 and the call goes on."""
    resources = get_resources(request)
    await check_call_id(resources, claims, call_id)
    await call_views.get_own(resources.db, claims.user_id, call_id)
    async with resources.db.transaction() as session:
        result = await cancellation.cancel(session, resources.providers, call_id)
    call = await call_views.get_own(resources.db, claims.user_id, call_id)
    data = CancelData(call_id=call_id, status=vendor.SHOWN_STATUS[call.status], result=result)
    return success(_CANCEL_MESSAGES[result], data)


def _shown_without_link(call: CallView) -> CallTranscript:
    """What a client is shown, but for the link, which is new each time."""
    return vendor.call_transcript(call, "stored" if call.has_recording else str(call.recording_pending))


def _is_complete(call: CallView) -> bool:
    """Whether nothing about the call is expected to change."""
    return call.ended_at is not None and not call.recording_pending and call.transcript_status not in transcripts.OPEN


def recording_link(call: CallView, links: RecordingLinks, settings: Settings) -> str | None:
    """A new link to the call's recording, or `pending` while it may still come."""
    if call.has_recording:
        expires_at = datetime.now(UTC) + timedelta(seconds=settings.recording_link_seconds)
        return links.make(call.id, call.user_id, expires_at)
    return "pending" if call.recording_pending else None


def _recent_call(call: CallView, links: RecordingLinks, settings: Settings) -> RecentCall:
    recording = recording_link(call, links, settings)
    made = vendor.find_transcript(call)
    return RecentCall(
        call_id=call.id,
        status=vendor.SHOWN_STATUS[call.status],
        customer_number=call.customer_number,
        agent_number=call.agent_number,
        did=call.did,
        duration=vendor.seconds_text(call.seconds),
        answer_duration=vendor.seconds_text(call.talk_seconds),
        hangup_cause=vendor.hangup_cause(call),
        call_type=call.call_type,
        transcript_enabled=call.transcript_status != TranscriptStatus.DISABLED,
        transcript_status=call.transcript_status,
        recording=recording,
        recording_url=recording if call.has_recording else None,
        transcript=made
        and RecentTranscript(summary=made.summary, call_outcome=made.call_outcome, history=made.history),
        created_at=call.created_at,
        updated_at=call.updated_at,
    )


def _filters(asked: RecentFilters, rules: NumberRules) -> Filters:
    for name, text in asked:
        if text is not None and "\0" in text:
            raise ValidationFailed(f"{name}: must not contain NUL")
    return Filters(
        statuses=None if asked.status is None else vendor.statuses_shown_as(asked.status),
        call_type=asked.call_type,
        transcript_status=asked.transcript_status,
        customer_number=_number_filter(asked.customer_number, rules),
        agent_number=_number_filter(asked.agent_number, rules),
        did=_number_filter(asked.did, rules),
        from_instant=_instant("date_from", asked.date_from),
        before_instant=_instant("date_to", asked.date_to, after=True),
    )


def _number_filter(asked: str | None, rules: NumberRules) -> NumberFilter | None:
    """A complete number matches in any spelling. Other text matches a part of the stored digits. A plus
    that was not escaped in the URL arrives as a blank."""
    if asked is None:
        return None
    try:
        whole = rules.read("+" + asked[1:] if asked.startswith(" ") else asked).digits
    except ValueError:
        whole = None
    part = part_of_number(asked)
    return NumberFilter(part, whole) if part else None


def _instant(name: str, text: str | None, *, after: bool = False) -> datetime | None:
    """The moment that the text names. `after`: the first moment after the day or second that it names. None: no
    limit."""
    if text is None:
        return None
    try:
        at, unit = _read(text)
    except (ValueError, OverflowError):
        raise ValidationFailed(f"{name}: must be an ISO 8601 date or instant, as 2026-03-05T10:00:00Z") from None
    try:
        return at + unit if after else at
    except OverflowError:  # 9999-12-31, which some use for ever
        return None


def _read(text: str) -> tuple[datetime, timedelta]:
    """The start of the day or second, and its length."""
    try:
        return datetime.combine(date.fromisoformat(text), time.min, UTC), timedelta(days=1)
    except ValueError:
        # the plus of an offset, not escaped
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.replace(microsecond=0), timedelta(seconds=1)
