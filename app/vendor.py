"""The vendor's words for statuses, events and causes, and the shapes that dialects and callbacks share. Pure."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from app import numbers
from app.call_views import CallView
from app.models import TranscriptStatus
from app.telephony.base import CallStatus
from app.transcription.base import Role

_S = CallStatus

SHOWN_STATUS: dict[CallStatus, str] = {
    _S.QUEUED: "queued",
    _S.DIALING: "queued",
    _S.RINGING: "queued",
    _S.IN_PROGRESS: "queued",
    _S.COMPLETED: "Answered",
    _S.BUSY: "NoAnswered",
    _S.NO_ANSWER: "NoAnswered",
    _S.CANCELED: "NoAnswered",
    _S.FAILED: "failed",
    _S.TIMED_OUT: "temporaryfailed",
    _S.AFTER_HOURS: "afthrs",
    _S.ENDED: "completed",
}

EVENT: dict[CallStatus, str] = {
    _S.COMPLETED: "call.answered",
    _S.BUSY: "call.not_answered",
    _S.NO_ANSWER: "call.not_answered",
    _S.CANCELED: "call.not_answered",
    _S.FAILED: "call.failed",
    _S.TIMED_OUT: "call.temporaryfailed",
    _S.AFTER_HOURS: "call.not_answered",
    _S.ENDED: "call.completed",
}
"""The callback event for each end of a call."""

MESSAGE: dict[str, str] = {
    "call.answered": "Call answered",
    "call.not_answered": "Call not answered",
    "call.failed": "Call failed",
    "call.temporaryfailed": "No report of the call yet",
    "call.completed": "Call completed",
    "transcript.ready": "Transcript ready",
    "transcript.failed": "Transcript processing failed",
    "transcript.disabled": "Transcript is disabled for this call",
}

_CAUSE: dict[CallStatus, str] = {
    _S.COMPLETED: "ANSWER",
    _S.BUSY: "BUSY",
    _S.NO_ANSWER: "NOANSWER",
    _S.CANCELED: "CANCEL",
    _S.FAILED: "FAILED",
    _S.TIMED_OUT: "TIMEOUT",
    _S.AFTER_HOURS: "AFTERHOURS",
}

Instant = Annotated[
    datetime,
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    Field(examples=["2026-03-05T10:00:00Z"]),
]
RecordingField = Annotated[
    str | None,
    Field(
        description="`pending` until it is stored; then a link that needs no token and expires, or null",
        examples=["https://calls.example.com/api/recordings/call_ab12cd34ef56gh78?expires=1772704800&signature=9f86"],
    ),
]
SecondsText = Annotated[str | None, Field(description="Seconds, as digits", examples=["42"])]


def _is_none(value: object) -> bool:
    return value is None


class Turn(BaseModel):
    """What one person says without a break. Seconds count from the answer."""

    role: Role = Field(examples=["customer"])
    content: str = Field(examples=["Please call me back tomorrow."])
    start: float = Field(examples=[4.76])
    end: float = Field(examples=[8.76])


class Transcript(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    transcript_id: str = Field(examples=["67c7d1e0a4b3c2d1e0f9a8b7"])
    summary: str
    call_outcome: str = Field(examples=["Interested"])
    history: list[Turn]
    created_at: Instant = Field(serialization_alias="createdAt")
    updated_at: Instant = Field(serialization_alias="updatedAt")


class CallTranscript(BaseModel):
    """A call's transcript as the newest dialect and its callbacks show it. Numbers are masked."""

    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    transcript_status: Literal["pending", "processing", "ready", "failed", "disabled"]
    customer_number: str = Field(examples=["xxxxx9999999"])
    agent_number: str | None = Field(examples=["xxxxx8888888"])
    duration: SecondsText
    recording: RecordingField
    transcript: Transcript | None
    hangup_cause: str | None = Field(None, description="Once known", examples=["ANSWER"], exclude_if=_is_none)
    error: str | None = Field(
        None,
        description="Why there is no transcript, if it failed",
        examples=["The call was not answered"],
        exclude_if=_is_none,
    )


def find_transcript(call: CallView) -> Transcript | None:
    """The transcript, if it is ready."""
    if call.transcript_status != TranscriptStatus.READY:
        return None
    return show_transcript(
        call.transcript_id,
        call.summary,
        call.outcome,
        call.history,
        call.transcript_created_at,
        call.transcript_updated_at,
    )


def show_transcript(
    transcript_id: str,
    summary: str | None,
    outcome: str | None,
    history: list[dict[str, Any]] | None,
    created_at: datetime,
    updated_at: datetime,
) -> Transcript:
    """A ready transcript, in the shape of both dialects."""
    return Transcript(
        transcript_id=transcript_id,
        summary=summary or "",
        call_outcome=outcome or "",
        history=[Turn(**turn) for turn in history or ()],
        created_at=created_at,
        updated_at=updated_at,
    )


def call_transcript(call: CallView, recording: str | None) -> CallTranscript:
    """The call as `GET …/transcript` and the callbacks show it."""
    failed = call.transcript_status == TranscriptStatus.FAILED
    return CallTranscript(
        call_id=call.id,
        transcript_status=call.transcript_status.value,
        customer_number=numbers.mask(call.customer_number),
        agent_number=call.agent_number and numbers.mask(call.agent_number),
        duration=seconds_text(call.seconds),
        recording=recording,
        transcript=find_transcript(call),
        hangup_cause=hangup_cause(call),
        error=(call.transcript_failure or "There is no transcript of this call") if failed else None,
    )


def hangup_cause(call: CallView) -> str | None:
    """The cause in the vendor's words. None until the call ends. What another system reported is shown unchanged."""
    if call.ended_at is None:
        return None
    reported = call.hangup_cause
    return reported if reported is not None and reported.isupper() else _CAUSE.get(call.status)


def statuses_shown_as(shown: str) -> list[CallStatus]:
    """Our statuses that the vendor calls by this name, in any case."""
    return [status for status, word in SHOWN_STATUS.items() if word.casefold() == shown.casefold()]


def seconds_text(seconds: int | None) -> str | None:
    """A duration as the vendor writes it."""
    return None if seconds is None else str(seconds)
