"""Reading the body of a request, within limits."""

import asyncio
import codecs

from fastapi import Request

from app.errors import BodyTooLarge, ValidationFailed

MAX_BODY_BYTES = 64 * 1024
_DRAINED_BYTES = 64 * 1024 * 1024
_BODY_SECONDS = 30.0


async def read_raw_body(request: Request) -> bytes:
    """Read the body. Raises `ValidationFailed` and `BodyTooLarge`."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await _limited_body(request)
    except TimeoutError:
        raise ValidationFailed("The body did not arrive in time") from None


async def _limited_body(request: Request) -> bytes:
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            body += chunk
        elif size > _DRAINED_BYTES:
            break  # up to here the body is read, so that a client that sends too much can read our answer
    if size > MAX_BODY_BYTES:
        raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body.removeprefix(codecs.BOM_UTF8))  # Windows systems put it before UTF-8
