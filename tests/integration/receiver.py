"""A receiver of callbacks: a real HTTP server on this machine, whose behaviour a test sets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class ReceivedCallback:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    port: int = 0
    received: list[ReceivedCallback] = field(default_factory=list)
    answer: Callable[[web.Request, int], Awaitable[web.StreamResponse]] | None = None
    """The response to the n-th request. None: 200."""
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            if request.path not in self.files:
                return web.Response(status=404)
            return web.Response(body=self.files[request.path], content_type="audio/wav")
        self.received.append(
            ReceivedCallback({key.lower(): value for key, value in request.headers.items()}, await request.read())
        )
        if self.answer is not None:
            return await self.answer(request, len(self.received))
        return web.Response()


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[Receiver]:
    """Serves while the block runs. When it is used again, it has the same port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", receiver.port, reuse_address=True)
    await site.start()
    server: Any = site._server
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
