"""The developer dialect, `/api/developer`, exactly as the vendor's.

What clients ask most, to order and to poll, takes the request alone. FastAPI's solving of parameters and dependencies
would take a seventh of a poll (docs/benchmarks.md).
"""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app import accounts, transcripts
from app.api.deps import (
    BEARER,
    CALL_ID,
    PREFER,
    check_call_id,
    find_idempotency_key,
    order_body,
    read_body,
    read_claims,
    read_news,
)
from app.api.envelope import Envelope, success
from app.api.login import add_login_routes
from app.api.schemas import Agent, CallOptions, Number, errors
from app.errors import RingbackError
from app.models import TranscriptStatus
from app.vendor import Transcript, show_transcript
from app.web.resources import get_resources

router = APIRouter(prefix="/api/developer", tags=["developer"])
add_login_routes(router, invalid=400)


class Click2CallRequest(CallOptions):
    customer_number: Number
    agent_number: Agent
    transcript: Annotated[bool | None, Field(description="Whether a transcript is made")] = True


class Click2CallData(BaseModel):
    """The optional keys are there if the client sent them."""

    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: Literal["queued"] = "queued"
    did: str | None = None
    callback_url: str | None = None
    transcript: bool | None = None
    transcript_language: str | None = None


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
    "/calls/click2call",
    summary="Call an agent and a customer, and join them",
    response_model=Envelope[Click2CallData],
    responses=errors(400, 401, 403, 404, 409, 413, 429),
    openapi_extra={**BEARER, **order_body(Click2CallRequest)},
)
async def click2call(request: Request) -> Response:
    """Queue a call. The agent is rung first, then the customer."""
    resources = get_resources(request)
    claims = read_claims(request)
    try:
        body = await read_body(request, Click2CallRequest)
        wants_transcript = body.transcript is not False
        order = body.order(
            body.customer_number,
            body.agent_number,
            transcript=wants_transcript,
            idempotency_key=find_idempotency_key(request),
        )
        created = await resources.new_calls.create(claims, order)
    except RingbackError:
        # a login that has ended is answered first, whatever else is wrong
        await accounts.check_login(resources.db, claims)
        raise
    options = {
        "did": body.did and body.did.written,
        "callback_url": body.callback_url,
        "transcript": wants_transcript,
        "transcript_language": body.transcript_language,
    }
    sent = {key: value for key, value in options.items() if key in body.model_fields_set}
    data = Click2CallData(call_id=created.id, status="queued", **sent)
    return success("Click2Call request created", data, exclude_unset=True)


@router.get(
    "/calls/{call_id}/transcript",
    summary="Poll for a call's transcript",
    response_model=Envelope[PendingTranscript | ReadyTranscript | FailedTranscript],
    responses=errors(400, 401, 403, 404),
    openapi_extra={**BEARER, "parameters": [CALL_ID, PREFER]},
)
async def get_transcript(request: Request) -> Response:
    """Pending until the transcript is made. Then ready, or failed with the reason."""
    resources = get_resources(request)
    claims, call_id = read_claims(request), request.path_params["call_id"]
    await check_call_id(resources, claims, call_id)
    view = await read_news(
        request,
        claims,
        call_id,
        partial(transcripts.read, resources.db, claims, call_id),
        shown=_is_made,
        is_final=_is_made,
    )
    if view.status is TranscriptStatus.READY:
        return success("Transcript found", ReadyTranscript(call_id=call_id, transcript=_shown(view)))
    if view.status in (TranscriptStatus.FAILED, TranscriptStatus.DISABLED):
        reason = view.failure or "No transcript was asked for"
        return success("Transcript processing failed", FailedTranscript(call_id=call_id, error=reason))
    return success("Transcript not available yet", PendingTranscript(call_id=call_id))


def _is_made(view: transcripts.TranscriptView) -> bool:
    return view.status not in transcripts.OPEN


def _shown(view: transcripts.TranscriptView) -> Transcript:
    return show_transcript(view.id, view.summary, view.outcome, view.history, view.created_at, view.updated_at)
