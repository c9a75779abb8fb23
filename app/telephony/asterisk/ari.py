"""Asterisk's REST interface and its events. Facts, no decisions.

Two things matter of a request: what Asterisk answered, or that there is no answer (`Lost`), and whether it may have
done what was asked.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from app.telephony.base import ProviderError

_PATIENCE = aiohttp.ClientTimeout(total=10, connect=3, sock_connect=3)
_HEARTBEAT_SECONDS = 5.0
_NO_SUCH_PATH = "Resource not found"
"""Asterisk's text for a path whose module is not loaded. A missing object is named instead: `Channel not found`."""


class Lost(ProviderError):
    """No answer came. `perhaps_done` is False if the request certainly had no effect."""

    def __init__(self, message: str, *, perhaps_done: bool) -> None:
        super().__init__(message)
        self.perhaps_done = perhaps_done


@dataclass(frozen=True, slots=True)
class AriResponse:
    """What Asterisk answered. `date` is its own clock, which also sets the `creationtime` of channels."""

    status: int
    body: Any
    date: str

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def description(self) -> str:
        """The answer for a person: `404 Channel not found`."""
        words = self.body.get("message") or self.body.get("error") if isinstance(self.body, dict) else self.body
        return f"{self.status} {words or ''}".strip()


class Ari:
    """One Asterisk, with one pool of connections."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url.rstrip("/").removesuffix("/ari") + "/ari"
        self._headers = {"Authorization": aiohttp.encode_basic_auth(username, password)}
        self._opened: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:  # a session needs a running loop, and there is none where adapters are created
            # Asterisk closes idle connections after 15 s. A request on a connection that is closing would be lost.
            connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=5)
            self._opened = aiohttp.ClientSession(headers=self._headers, timeout=_PATIENCE, connector=connector)
        return self._opened

    async def request(self, method: str, path: str, **query: str) -> AriResponse:
        """Send a request once. Raises `Lost`."""
        try:
            async with self._session().request(method, self._url + path, params=query) as answer:
                body = _parsed(await answer.text())
        except aiohttp.ClientConnectorError as error:
            raise Lost(
                f"Asterisk cannot be reached at {self._url}: {error.strerror or error}", perhaps_done=False
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(f"Asterisk did not answer: {error!r}", perhaps_done=True) from error
        if answer.status == 404 and (not isinstance(body, dict) or body.get("message") == _NO_SUCH_PATH):
            # For half a second of each start, Asterisk's web server runs without ARI, and finds nothing.
            raise Lost(f"ARI at {self._url} is not there, or only just starting or stopping", perhaps_done=False)
        return AriResponse(answer.status, body, answer.headers.get("Date", ""))

    @asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Download a file. Raises `Lost`."""
        patience = aiohttp.ClientTimeout(total=None, connect=3, sock_read=20)
        try:
            async with self._session().get(self._url + path, timeout=patience) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(f"Asterisk did not send all: {error!r}", perhaps_done=True) from error

    @asynccontextmanager
    async def events(self, app: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of this application, from now on. Entered once it is connected. Raises `ProviderError`."""
        try:
            async with self._session().ws_connect(
                f"{self._url}/events",
                params={"app": app, "subscribeAll": "false"},
                heartbeat=_HEARTBEAT_SECONDS,
                max_msg_size=0,
            ) as socket:
                yield _messages(socket)
        except aiohttp.WSServerHandshakeError as error:
            reason = "refuses this user name and password" if error.status in (401, 403) else f"answered {error.status}"
            raise ProviderError(f"Asterisk at {self._url} {reason}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProviderError(f"Asterisk cannot be reached at {self._url}: {error}") from error

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()


async def _messages(socket: "aiohttp.ClientWebSocketResponse") -> AsyncIterator[dict[str, Any]]:
    async for message in socket:
        if message.type == aiohttp.WSMsgType.TEXT:
            event: dict[str, Any] = json.loads(message.data)
            if event["type"] == "ApplicationReplaced":
                raise ProviderError("another listener took over this Stasis application")
            yield event
    raise ProviderError("Asterisk closed the connection")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
