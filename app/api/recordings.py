"""Downloads of recordings, by signed links that need no token."""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from app import recordings
from app.api.deps import get_resources
from app.api.envelope import ErrorEnvelope, failure
from app.api.schemas import errors
from app.errors import NoSuchRecording
from app.storage import StorageError

router = APIRouter(prefix="/api", tags=["recordings"])

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


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
    size = stored.size_bytes
    etag = f'"{stored.sha256[:32]}"'
    unchanged = request.headers.get("If-Range", etag) == etag
    part = _part(request.headers.get("Range") if unchanged else None, size)
    if part is None:
        return failure(416, f"The recording has {size} bytes", {"Content-Range": f"bytes */{size}"})
    start, end = part
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": f'attachment; filename="{stored.file_name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "ETag": etag,
    }
    partial = (start, end) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(None, status, headers, media_type=stored.content_type)
    try:
        chunks = await resources.storage.read(stored.storage_key, start, end)
    except StorageError:
        raise NoSuchRecording from None
    return StreamingResponse(_bytes(chunks), status, headers, media_type=stored.content_type)


async def _bytes(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


def _part(asked: str | None, size: int) -> tuple[int, int] | None:
    """The requested range as start and end. The whole file without a range, or with several. None: there is no such
    range."""
    match = _RANGE.fullmatch((asked or "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        wanted = min(int(last), size)
        return (size - wanted, size) if wanted else None
    start, end = int(first), min(int(last) + 1 if last else size, size)
    return (start, end) if start < end else None
