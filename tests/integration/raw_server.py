"""An HTTP server that sends given bytes, and records the bytes of each request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ReceivedRequest:
    """One request."""

    target: str
    headers: dict[str, str]


@dataclass
class RawServer:
    port: int = 0
    asked: list[ReceivedRequest] = field(default_factory=list)
    answer: Callable[[ReceivedRequest], bytes] = lambda _: response(404)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [asked.target for asked in self.asked]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            pairs = (line.split(":", 1) for line in lines)
            asked = ReceivedRequest(
                first.split(" ", 1)[1].removesuffix(" HTTP/1.1"), {k.lower(): v.strip() for k, v in pairs}
            )
            self.asked.append(asked)
            writer.write(self.answer(asked))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Build a response. Header names have _ for -. Without a Content_Length the real length is sent, and an empty one
    is left out."""
    sent = {"Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in sent.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, "Connection: close", "", ""]).encode() + body


@asynccontextmanager
async def serving(server: RawServer) -> AsyncIterator[RawServer]:
    """Serves while the block runs."""
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
