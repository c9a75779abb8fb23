"""Asterisk's REST interface and its events. Facts, no decisions.

Of what comes back two things matter: what Asterisk said (a status), or that there is no answer (`Lost`), and whether
it may have done what was asked all the same.
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
"""Of a path whose module is not loaded. What is not there itself is named: `Channel not found`."""


class Lost(ProviderError):
    """No answer of ARI's came. `perhaps_done` is False when surely nothing came of the request."""

    def __init__(self, message: str, *, perhaps_done: bool) -> None:
        super().__init__(message)
        self.perhaps_done = perhaps_done


@dataclass(frozen=True, slots=True)
class AriResponse:
    """What Asterisk said. `date` is its own clock, by which `creationtime` of channels is meant."""

    status: int
    body: Any
    date: str

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def said(self) -> str:
        """For a person: `404 Channel not found`."""
        words = self.body.get("message") or self.body.get("error") if isinstance(self.body, dict) else self.body
        return f"{self.status} {words or ''}".strip()


class Ari:
    """One Asterisk, with one pool of connections."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url.rstrip("/").removesuffix("/ari") + "/ari"
        self._headers = {"Authorization": aiohttp.encode_basic_auth(username, password)}
        self._opened: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:  # needs a running loop, which there is not where adapters are made
            # Asterisk closes idle connections after 15 s; one that is reused just then would lose a request.
            connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=5)
            self._opened = aiohttp.ClientSession(headers=self._headers, timeout=_PATIENCE, connector=connector)
        return self._opened

    async def request(self, method: str, path: str, **query: str) -> AriResponse:
        """One attempt. Raises `Lost`."""
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
            # Half a second of every start Asterisk's web server is there without ARI, and knows nothing of anything.
            raise Lost(f"ARI at {self._url} is not there, or only just starting or stopping", perhaps_done=False)
        return AriResponse(answer.status, body, answer.headers.get("Date", ""))

    @asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A file. Raises `Lost`."""
        patience = aiohttp.ClientTimeout(total=None, connect=3, sock_read=20)
        try:
            async with self._session().get(self._url + path, timeout=patience) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(f"Asterisk did not send all: {error!r}", perhaps_done=True) from error

    @asynccontextmanager
    async def events(self, app: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of this application, from now on. Raises `ProviderError`; entered once connected."""
        try:
            async with self._session().ws_connect(
                f"{self._url}/events",
                params={"app": app, "subscribeAll": "false"},
                heartbeat=_HEARTBEAT_SECONDS,
                max_msg_size=0,
            ) as socket:
                yield _messages(socket)
        except aiohttp.WSServerHandshakeError as error:
            reason = "refuses this user name and password" if error.status in (401, 403) else f"said {error.status}"
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
