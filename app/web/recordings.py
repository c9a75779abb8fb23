"""Sending a stored recording."""

import re
from collections.abc import AsyncIterator

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from app.errors import NoSuchRange, NoSuchRecording
from app.recordings import StoredRecording
from app.storage import StorageError
from app.web.resources import get_resources

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


async def answer_recording(request: Request, stored: StoredRecording, *, inline: bool = False) -> Response:
    """The recording, or the part that the request asks for. `inline`: to be played, not saved. Raises
    `NoSuchRecording`, `NoSuchRange`."""
    resources = get_resources(request)
    size = stored.size_bytes
    etag = f'"{stored.sha256[:32]}"'
    unchanged = request.headers.get("If-Range", etag) == etag
    part = _part(request.headers.get("Range") if unchanged else None, size)
    if part is None:
        raise NoSuchRange(f"The recording has {size} bytes", size=size)
    start, end = part
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": f'{"inline" if inline else "attachment"}; filename="{stored.file_name}"',
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
