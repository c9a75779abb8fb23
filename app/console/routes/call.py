"""One call: what happened, what was said, and what can be done about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import JSONResponse

from app import audit, call_ids, call_lists, cancellation, deliveries, history, recordings, transcripts, waveforms
from app.audit import AuditAction
from app.call_lists import ListedCall
from app.cancellation import CancelResult
from app.console.pages import HEADERS, PageRoute, go, page
from app.console.session import NoPage, Seen, Viewer
from app.errors import NoSuchRecording, RingbackError
from app.history import CallHistory
from app.models import TranscriptStatus
from app.telephony.base import CallStatus
from app.web.recordings import answer_recording
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

_CANCELED = {
    CancelResult.CANCELED: "The call is canceled.",
    CancelResult.HANGING_UP: "The call is being hung up.",
    CancelResult.ENDED_BEFORE: "The call had ended before.",
}


@router.get("/calls/{call_id}")
async def call_page(request: Request, viewer: Seen, call_id: str) -> Response:
    """The call."""
    async with get_resources(request).db.transaction() as session:
        call = await _get_seen(session, viewer, call_id)
        found = await history.find_call_history(session, call_id)
        if found is None:  # deleted just now
            raise NoPage
        attempts = await deliveries.list_attempts(session, [delivery.id for delivery in found.callbacks])
        if call.user_id != viewer.user_id:
            await audit.add(session, viewer.actor, AuditAction.LOOKED_AT_CALL, subject=call.id, owner=call.user_id)
    turns = found.transcript.history or []
    return page(
        request,
        "call.html",
        viewer,
        call=call,
        history=found,
        attempts=attempts,
        turns=turns,
        shares=_shares(turns),
        steps=_steps(call),
        can_retry=_can_retry(call, found),
    )


async def _get_seen(session: AsyncSession, viewer: Viewer, call_id: str) -> ListedCall:
    """The call, if the viewer may see it. Raises `NoPage`."""
    found = await call_lists.list_these(session, [call_id]) if call_ids.is_call_id(call_id) else []
    if not found or not viewer.may_see(found[0].user_id):
        raise NoPage
    return found[0]


@dataclass(frozen=True, slots=True)
class _Share:
    """How much of the speech one side spoke."""

    role: str
    percent: float


def _shares(turns: Sequence[dict[str, Any]]) -> list[_Share]:
    spoken: dict[str, float] = {}
    for turn in turns:
        spoken[turn["role"]] = spoken.get(turn["role"], 0.0) + max(0.0, turn["end"] - turn["start"])
    total = sum(spoken.values())
    return [_Share(role, 100 * seconds / total) for role, seconds in sorted(spoken.items())] if total else []


@dataclass(frozen=True, slots=True)
class _Step:
    """A stage of a call's life. `state` is `done`, `on` or empty."""

    name: str
    state: str


def _steps(call: ListedCall) -> list[_Step]:
    """The stages of a call on its way to a transcript."""
    if call.status is CallStatus.QUEUED:
        at = 0
    elif call.status in (CallStatus.DIALING, CallStatus.RINGING):
        at = 1 if call.agent_answered_at is None else 2
    elif call.status is CallStatus.IN_PROGRESS:
        at = 3
    else:
        at = 4 if call.transcript_status in (TranscriptStatus.PENDING, TranscriptStatus.PROCESSING) else 5
    names = ("Queued", "Agent's telephone rings", "Customer's telephone rings", "Talking", "Transcribing", "Done")
    return [_Step(name, "done" if place < at else "on" if place == at else "") for place, name in enumerate(names)]


def _can_retry(call: ListedCall, found: CallHistory) -> bool:
    return call.transcript_status is TranscriptStatus.FAILED and found.recording is not None


@router.post("/calls/{call_id}/cancel")
async def cancel(request: Request, viewer: Seen, call_id: str) -> Response:
    """Cancel the call, or hang it up, as far as its provider can."""
    resources = get_resources(request)
    try:
        async with resources.db.transaction() as session:
            call = await _get_seen(session, viewer, call_id)
            result = await cancellation.cancel(session, resources.providers, call_id)
            await audit.add(session, viewer.actor, AuditAction.CANCELED_CALL, subject=call_id, owner=call.user_id)
    except RingbackError as error:
        return go(f"/calls/{call_id}", error.message)
    return go(f"/calls/{call_id}", _CANCELED[result])


@router.post("/calls/{call_id}/transcript")
async def retry_transcript(request: Request, viewer: Seen, call_id: str) -> Response:
    """Make the transcript again."""
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        call = await _get_seen(session, viewer, call_id)
    try:
        await transcripts.retry(resources.db, call.user_id, call_id)
    except RingbackError as error:
        return go(f"/calls/{call_id}", error.message)
    async with resources.db.transaction() as session:
        await audit.add(session, viewer.actor, AuditAction.RETRIED_TRANSCRIPT, subject=call_id, owner=call.user_id)
    return go(f"/calls/{call_id}", "The call is being transcribed again.")


@router.get("/calls/{call_id}/recording")
async def recording(request: Request, viewer: Seen, call_id: str) -> Response:
    """The recording, to be played. Accepts a `Range`."""
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        call = await _get_seen(session, viewer, call_id)
        stored = await recordings.find_for_download(session, call_id)
        if stored is None:
            raise NoSuchRecording
        if call.user_id != viewer.user_id and request.headers.get("Range", "bytes=0-").startswith("bytes=0-"):
            await audit.add(session, viewer.actor, AuditAction.PLAYED_RECORDING, subject=call_id, owner=call.user_id)
    return await answer_recording(request, stored, inline=True)


@router.get("/calls/{call_id}/peaks")
async def peaks(request: Request, viewer: Seen, call_id: str) -> Response:
    """How loud each side is over time."""
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        await _get_seen(session, viewer, call_id)
    found = await waveforms.read(resources.db, resources.storage, call_id)
    return JSONResponse(asdict(found), headers=HEADERS)
