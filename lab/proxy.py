"""A proxy between Ringback and ARI with faults: it is slow, refuses requests, loses answers, and cuts the WebSocket."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Match = Callable[[web.BaseRequest], bool]


@dataclass
class Fault:
    """What happens to matching requests, while it is among the proxy's `faults`."""

    matches: Match
    delay: float = 0.0
    status: int | None = None
    """Answer with this status, without asking Asterisk."""
    lose_request: bool = False
    """Asterisk never gets the request, and the connection is cut."""
    lose_answer: bool = False
    """Asterisk performs the request, and the connection is cut."""
    gate: asyncio.Event | None = None
    """The request first waits for this."""
    times: int = 1_000_000
    hits: list[str] = field(default_factory=list)
    """The requests that matched."""
    waiting: list[web.BaseRequest] = field(default_factory=list)
    """Those that wait for the gate."""

    @property
    def is_awaited(self) -> bool:
        """A client still waits for the answer to a request that is at the gate. It may have given up."""
        return any(asked.transport is not None and not asked.transport.is_closing() for asked in self.waiting)


class FaultyProxy:
    def __init__(self, target: str) -> None:
        self._target = target
        self.faults: list[Fault] = []
        self._call_ids: dict[str, str] = {}
        self._sockets: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60))
        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        self.faults.clear()
        await self.cut_sockets()
        await self._session.close()
        await self._runner.cleanup()

    def request(self, method: str, ending: str, part: str = "", *, agent: str | None = None) -> Match:
        """Matches requests of this method, with this end of the path and this part in the URL, optionally of one
        agent's call only."""
        return lambda asked: (
            asked.method == method
            and asked.path.endswith(ending)
            and part in asked.path_qs
            and (agent is None or self._call_ids.get(agent, "unknown") in asked.path_qs)
        )

    async def cut_sockets(self) -> None:
        """End every event stream at once, without a close frame."""
        for socket in list(self._sockets):
            if socket._req is not None and socket._req.transport is not None:  # there is no public way to do this
                socket._req.transport.abort()

    async def _handle(self, asked: web.BaseRequest) -> web.StreamResponse:
        if asked.path.endswith("/channels/create"):
            number = "".join(filter(str.isdigit, asked.query["endpoint"]))
            self._call_ids[number] = asked.query["channelId"].rpartition("-")[0]
        fault = next((fault for fault in self.faults if fault.matches(asked) and len(fault.hits) < fault.times), None)
        if fault is not None:
            fault.hits.append(f"{asked.method} {asked.path}")
            if fault.gate is not None:
                fault.waiting.append(asked)
                await fault.gate.wait()
            await asyncio.sleep(fault.delay)
            if fault.lose_request:
                return self._cut(asked)
            if fault.status is not None:
                return web.json_response({"message": "A fault of the lab"}, status=fault.status)
        if asked.headers.get("Upgrade", "").lower() == "websocket":
            return await self._relay_socket(asked)
        headers = {name: asked.headers[name] for name in ("Authorization", "Content-Type") if name in asked.headers}
        try:
            async with self._session.request(
                asked.method, self._target + asked.path_qs, headers=headers, data=await asked.read()
            ) as answer:
                body = await answer.read()
                if fault is not None and fault.lose_answer:
                    return self._cut(asked)
                kept = {name: answer.headers[name] for name in ("Content-Type", "Date") if name in answer.headers}
                return web.Response(status=answer.status, body=body, headers=kept)
        except aiohttp.ClientError:
            return self._cut(asked)

    def _cut(self, asked: web.BaseRequest) -> web.Response:
        if asked.transport is not None:
            asked.transport.abort()
        return web.Response()

    async def _relay_socket(self, asked: web.BaseRequest) -> web.StreamResponse:
        headers = {"Authorization": asked.headers.get("Authorization", "")}
        try:
            async with self._session.ws_connect(self._target + asked.path_qs, headers=headers) as upstream:
                socket = web.WebSocketResponse(heartbeat=5)
                await socket.prepare(asked)
                self._sockets.add(socket)
                try:
                    answering = asyncio.create_task(_drain(socket, upstream))
                    async for message in upstream:
                        if message.type == aiohttp.WSMsgType.TEXT:
                            await socket.send_str(message.data)
                    answering.cancel()
                    return self._cut(asked) if not socket.closed else socket
                finally:
                    self._sockets.discard(socket)
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        except (aiohttp.ClientError, ConnectionError):
            return self._cut(asked)


async def _drain(socket: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Answer its pings, and disconnect from Asterisk when it has left."""
    async for _ in socket:
        pass
    await upstream.close()
