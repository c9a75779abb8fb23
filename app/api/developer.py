"""The seed's dialect, `/api/developer`: exact, key for key and word for word."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from app import accounts, calls, numbers, transcripts
from app.api.deps import Bearer, json_body, read_body, resources
from app.api.envelope import Detail, Envelope, ErrorEnvelope, success
from app.calls import NewCall
from app.errors import InvalidRequest, NoSuchCall
from app.models import TranscriptStatus
from app.transcription.base import Role

router = APIRouter(prefix="/api/developer", tags=["developer"])

_CALL_ID = re.compile(r"call_[0-9a-z]{16}")

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorEnvelope,
        "description": "Wrong credentials, an inactive user, or an invalid request",
    },
    401: {"model": Detail, "description": "Missing or invalid access token"},
    403: {"model": ErrorEnvelope, "description": "Another user's call"},
    404: {"model": ErrorEnvelope, "description": "No such call"},
    413: {"model": ErrorEnvelope, "description": "A body above 64 KiB"},
    429: {
        "model": ErrorEnvelope,
        "description": "Too many failed logins; `Retry-After` says how long to wait",
    },
    503: {
        "model": ErrorEnvelope,
        "description": "The database cannot be reached; `Retry-After` says when to try again",
    },
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _ERRORS[status] for status in (*statuses, 503)}


Number = Annotated[
    str,
    AfterValidator(numbers.parse),
    Field(description="8 to 15 digits, with an optional leading +", examples=["919999999999"]),
]
Instant = Annotated[
    datetime,
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    Field(examples=["2026-03-05T10:00:00Z"]),
]


class LoginRequest(BaseModel):
    email: str = Field(examples=["user@example.com"])
    password: str = Field(examples=["your_password"])


class LoginData(BaseModel):
    access_token: str = Field(examples=["<jwt_access_token>"])
    refresh_token: str = Field(examples=["<jwt_refresh_token>"])
    token_type: Literal["bearer"] = "bearer"  # noqa: S105


class Click2CallRequest(BaseModel):
    customer_number: Number
    agent_number: Number


class Click2CallData(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: Literal["queued"] = "queued"


class Turn(BaseModel):
    """One speaker's say; seconds count from the answer."""

    role: Role
    content: str
    start: float
    end: float


class Transcript(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    transcript_id: str = Field(examples=["67c7d1e0a4b3c2d1e0f9a8b7"])
    summary: str
    call_outcome: str = Field(examples=["Interested"])
    history: list[Turn]
    created_at: Instant = Field(serialization_alias="createdAt")
    updated_at: Instant = Field(serialization_alias="updatedAt")


class PendingTranscript(BaseModel):
    call_id: str
    transcript_status: Literal["pending"] = "pending"
    transcript: None = None


class ReadyTranscript(BaseModel):
    call_id: str
    transcript_status: Literal["ready"] = "ready"
    transcript: Transcript


class FailedTranscript(BaseModel):
    call_id: str
    transcript_status: Literal["failed"] = "failed"
    transcript: None = None
    error: str = Field(description="Why there is none", examples=["The call was not answered"])


@router.post(
    "/login",
    summary="Log in",
    response_model=Envelope[LoginData],
    responses=_errors(400, 413, 429),
    openapi_extra=json_body(LoginRequest),
)
async def login(request: Request) -> Response:
    """Authenticate a verified, active user. A login never ends another one."""
    house = resources(request)
    body = await read_body(request, LoginRequest)
    pair = await accounts.log_in(
        house.db,
        house.tokens,
        house.throttle,
        email=body.email,
        password=body.password,
        address=request.client.host if request.client else None,
        session_seconds=house.settings.refresh_token_seconds,
    )
    return success("Login successful", LoginData(access_token=pair.access_token, refresh_token=pair.refresh_token))


@router.post(
    "/refresh_token",
    summary="Get a new access token",
    response_model=Envelope[LoginData],
    responses={
        **_errors(400),
        401: {"model": ErrorEnvelope, "description": "Expired or revoked refresh token"},
    },
)
async def refresh_token(request: Request, refresh_token: Annotated[str, Query()]) -> Response:
    """A new access token for the same login, with the same refresh token."""
    house = resources(request)
    pair = await accounts.refresh(house.db, house.tokens, refresh_token)
    data = LoginData(access_token=pair.access_token, refresh_token=pair.refresh_token)
    return success("Token refreshed successfully", data)


@router.post(
    "/calls/click2call",
    summary="Call an agent and a customer, and join them",
    response_model=Envelope[Click2CallData],
    responses=_errors(400, 401, 413),
    openapi_extra=json_body(Click2CallRequest),
)
async def click2call(request: Request, claims: Bearer) -> Response:
    """Queue a call. The agent is rung first; when they answer, the customer."""
    house = resources(request)
    try:
        body = await read_body(request, Click2CallRequest)
    except InvalidRequest:
        await accounts.check_login(house.db, claims)  # a login that has ended is told so, whatever the body
        raise
    order = NewCall(customer_number=body.customer_number, agent_number=body.agent_number)
    call_id = await calls.create_call(house.db, house.hints, claims, order)
    return success("Click2Call request created", Click2CallData(call_id=call_id))


@router.get(
    "/calls/{call_id}/transcript",
    summary="Poll for a call's transcript",
    response_model=Envelope[PendingTranscript | ReadyTranscript | FailedTranscript],
    responses=_errors(400, 401, 403, 404),
)
async def get_transcript(request: Request, call_id: str, claims: Bearer) -> Response:
    """Pending until the transcript is made; then ready, or failed with the reason."""
    house = resources(request)
    if _CALL_ID.fullmatch(call_id) is None:
        await accounts.check_login(house.db, claims)
        raise NoSuchCall
    view = await transcripts.read(house.db, claims, call_id)
    if view.status is TranscriptStatus.READY:
        return success("Transcript found", ReadyTranscript(call_id=call_id, transcript=_transcript(view)))
    if view.status in (TranscriptStatus.FAILED, TranscriptStatus.DISABLED):
        reason = view.failure or "No transcript was asked for"
        return success("Transcript processing failed", FailedTranscript(call_id=call_id, error=reason))
    return success("Transcript not available yet", PendingTranscript(call_id=call_id))


def _transcript(view: transcripts.TranscriptView) -> Transcript:
    return Transcript(
        transcript_id=view.id,
        summary=view.summary or "",
        call_outcome=view.outcome or "",
        history=[Turn(**turn) for turn in view.history or ()],
        created_at=view.created_at,
        updated_at=view.updated_at,
    )
