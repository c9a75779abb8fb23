"""Downloads of recordings, by signed links that need no token."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app import recordings
from app.api.envelope import ErrorEnvelope
from app.api.schemas import errors
from app.errors import NoSuchRecording
from app.web.recordings import answer_recording
from app.web.resources import get_resources

router = APIRouter(prefix="/api", tags=["recordings"])


@router.get(
    "/recordings/{call_id}",
    summary="Download a recording",
    response_class=Response,
    responses={
        **errors(404, 422),
        200: {"content": {"audio/wav": {}}, "description": "The recording: agent left, customer right"},
        206: {"content": {"audio/wav": {}}, "description": "The part that was asked for"},
        416: {"model": ErrorEnvelope, "description": "There is no such part"},
    },
)
@router.head("/recordings/{call_id}", include_in_schema=False)
async def download(
    request: Request,
    call_id: str,
    expires: Annotated[int, Query(ge=0, le=2**40)],
    signature: Annotated[str, Query(max_length=64)],
) -> Response:
    """Downloads a recording, by the link in a transcript, a list or a callback. Accepts a `Range`."""
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        stored = await recordings.find_for_download(session, call_id)
    if stored is None or not resources.links.allows(call_id, stored.owner_id, expires, signature):
        raise NoSuchRecording
    return await answer_recording(request, stored)
