"""The bytes of a download: limits, and undoing `Content-Encoding`."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from app.outbound.base import DownloadTooLarge, NotThere, UndecodableBody

CHUNK_BYTES = 64 * 1024

_GZIP = b"\x1f\x8b"
_UNDONE = ("gzip", "x-gzip", "deflate")
_NOT_UNDONE = ("br", "zstd", "compress", "x-compress")
_MOST_CODINGS = 2


def decoded(chunks: AsyncIterator[bytes], codings: Iterable[str], max_bytes: int) -> AsyncIterator[bytes]:
    """The content without the codings that these headers name.

    Raises `UndecodableBody`. While it is read, raises `NotThere`, and `DownloadTooLarge` if it exceeds `max_bytes`
    after any of the codings, because a small file can decompress into a huge one.
    """
    undone = 0
    for coding in reversed([coding.strip() for coding in ",".join(codings).lower().split(",")]):
        if coding in _NOT_UNDONE:
            raise UndecodableBody(f"the file is compressed by {coding}, which is not understood")
        if coding in _UNDONE:
            undone += 1
            chunks = limited(_inflated(chunks, is_deflate=coding == "deflate"), max_bytes)
        # Any other coding is not a compression. A store sends whatever the file was stored with.
    if undone > _MOST_CODINGS:
        raise UndecodableBody(f"the file is compressed {undone} times, of which {_MOST_CODINGS} are undone")
    return chunks


async def limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The same chunks. Raises `DownloadTooLarge` after `max_bytes`."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise DownloadTooLarge(f"the file is larger than {max_bytes} bytes")
        yield chunk


async def _inflated(chunks: AsyncIterator[bytes], *, is_deflate: bool) -> AsyncIterator[bytes]:
    """Decompress into pieces of at most `CHUNK_BYTES`. Data that is not compressed is passed on. Data after the end is
    dropped, unless it is another gzip file."""
    decoder: Any = None
    window = 0
    pending = b""
    async for chunk in chunks:
        pending += chunk
        if len(pending) < len(_GZIP):
            continue
        data, pending = pending, b""
        if decoder is None:
            window = _window_bits(data, is_deflate)
            if not window:
                yield data
                async for rest in chunks:
                    yield rest
                return
            decoder = zlib.decompressobj(window)
        while data:
            if decoder.eof:
                if len(data) < len(_GZIP):
                    pending = data
                    break
                if not data.startswith(_GZIP):
                    return
                decoder = zlib.decompressobj(window)
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise NotThere(f"what the server sent compressed is damaged: {error}") from error
            if piece:
                yield piece
            await asyncio.sleep(0)  # a whole file may come out of one chunk, and the event loop has other work
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if decoder is None:
        yield pending
        return
    yield decoder.flush()
    if not decoder.eof:
        raise NotThere("what the server sent was cut short")


def _window_bits(data: bytes, is_deflate: bool) -> int:
    """zlib's parameter for data that begins like this. 0: it is not compressed."""
    if data.startswith(_GZIP):
        return 16 + zlib.MAX_WBITS
    if not is_deflate:
        return 0
    if data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0:
        return zlib.MAX_WBITS
    try:
        zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, CHUNK_BYTES)
    except zlib.error:
        return 0
    return -zlib.MAX_WBITS
