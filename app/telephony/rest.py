"""REST client for the adapters of hosted providers. Each request is sent once, and redirects are not followed.

Credentials go to the provider's own origin only. Recordings may be redirected to a store elsewhere, which never sees
them.
"""

import json as json_module
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from app.telephony.base import Accepted, PlaceResult, ProviderError, Rejected, Unknown

LONGEST_SECONDS = 20.0
"""The longest time that one request takes. Also a provider's `Capabilities.longest_dial_seconds`."""
UNREACHABLE_RETRY_SECONDS = 2.0
BUSY_RETRY_SECONDS = 5.0
"""When to try again a provider that is busy, and does not say until when."""

CREATED_BEFORE, CREATED_AFTER = timedelta(seconds=5), timedelta(seconds=60)
"""A provider created a call from so long before to so long after its order left here. Clocks differ."""

_CONNECT_SECONDS = 5.0
# Providers and their load balancers close idle connections. An order on a connection that is closing would be lost.
_KEEPALIVE_SECONDS = 5.0
_SILENCE_SECONDS = 30.0
"""How long a download may pause."""
_MOST_REDIRECTS = 5
_CHUNK_BYTES = 64 * 1024
_TEXT_LENGTH = 300

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names and values of a query or a form. Pairs, if a name comes more than once."""


class NoResponse(ProviderError):
    """No usable response came. `maybe_received` is False if certainly no byte of the request left."""

    def __init__(self, message: str, *, maybe_received: bool) -> None:
        super().__init__(message)
        self.maybe_received = maybe_received


class DownloadRefused(ProviderError):
    """A download was answered with `status`, which is not 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class RestResponse:
    """A provider's response."""

    status: int
    body: Any
    """Parsed JSON, or the text if it is none."""
    headers: Mapping[str, str]
    """Names in any case."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> float:
        """The seconds of Retry-After, which may be a date, or `BUSY_RETRY_SECONDS`."""
        wanted = self.headers.get("Retry-After", "").strip()
        if wanted.isdecimal():
            return max(1.0, float(wanted))
        try:
            return max(1.0, parsedate_to_datetime(wanted).timestamp() - time.time())
        except (TypeError, ValueError):
            return BUSY_RETRY_SECONDS

    @property
    def date(self) -> datetime:
        """The time at the provider when it answered, in whole seconds. Without a Date header, ours."""
        try:
            return parsedate_to_datetime(self.headers["Date"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError):
            return datetime.now(UTC).replace(microsecond=0)

    def find(self, *names: str) -> str | None:
        """The first of these fields that the body has with a text or number."""
        if isinstance(self.body, dict):
            for name in names:
                if isinstance(self.body.get(name), str | int) and self.body[name] != "":
                    return str(self.body[name])
        return None

    @property
    def description(self) -> str:
        """The response for a person, as `400 The number is not valid`. Shows a body without such words only if it is
        an error, because others may hold secrets."""
        words = self.find("message", "error", "detail", "Message")
        if words is None and self.body and not self.ok:
            words = self.body if isinstance(self.body, str) else json_module.dumps(self.body)
        return f"{self.status} {' '.join((words or '').split())[:_TEXT_LENGTH]}".strip()


@dataclass(frozen=True, slots=True)
class RestDownload:
    """A file as it arrives. `chunks` must be read, or the connection stays open. They raise `ProviderError`."""

    content_type: str
    """Without parameters, in lower case. Empty if the response names none."""
    chunks: AsyncIterator[bytes] = field(repr=False)


class RestClient:
    """One provider's REST interface, with one pool of connections. `name` is what people call the provider."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        username: str | None = None,
        password: str = "",
        headers: Mapping[str, str] | None = None,
        own_domain: str | None = None,
    ) -> None:
        """`username` and `password` are sent as Basic auth. `headers` may hold credentials, too. Every host of
        `own_domain` may see them over HTTPS, as one that has the recordings."""
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._credentials = dict(headers or {})
        if username is not None:
            self._credentials["Authorization"] = aiohttp.encode_basic_auth(username, password)
        self._own_domain = own_domain
        self._opened: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Fields = (),
        form: Fields | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> RestResponse:
        """Send a request once. `path` follows the base URL, or is an URL. Raises `NoResponse`."""
        try:
            url = self._url(path).extend_query(_pairs(query))
            sent = {**self._headers_for(url), **(headers or {})}
        except ValueError as error:
            raise NoResponse(
                f"{self.name}: {self._place(path)} is not an URL: {error}", maybe_received=False
            ) from error
        data = None if form is None else aiohttp.FormData(_pairs(form))
        try:
            async with self._session().request(
                method, url, data=data, json=json, headers=sent, allow_redirects=False
            ) as response:
                return RestResponse(response.status, _parsed(await response.text(errors="replace")), response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise NoResponse(
                f"{self.name} cannot be reached at {self._place(path)}: {_reason(error)}", maybe_received=False
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoResponse(f"{self.name} did not respond: {_reason(error)}", maybe_received=True) from error

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Fields = (),
        form: Fields | None = None,
        json: Any = None,
    ) -> RestResponse:
        """As `request`, for what may be repeated. Raises `ProviderError` also for a response that tells nothing of the
        thing asked for: one of a busy or broken provider (429, 5xx), a redirect, and refused credentials."""
        response = await self.request(method, path, query=query, form=form, json=json)
        if response.status in (401, 403):
            raise ProviderError(f"{self.name} refuses the credentials: {response.description}")
        if response.status == 429:
            raise ProviderError(f"{self.name} answered {response.description}", retry_after=response.retry_after)
        if response.status >= 500 or 300 <= response.status < 400:
            raise ProviderError(f"{self.name} answered {response.description}")
        return response

    async def order(
        self,
        path: str,
        *,
        reference: Callable[[RestResponse], str | None],
        form: Fields | None = None,
        json: Any = None,
        method: str = "POST",
        is_accepted: Callable[[RestResponse], bool] = lambda response: True,
        is_busy: Callable[[RestResponse], bool] = lambda response: response.status == 429,
        describe: Callable[[RestResponse], str] = lambda response: response.description,
    ) -> PlaceResult:
        """Order a call with this one request. Never raises `ProviderError`.

        `reference` finds the call's reference in the response, or None. `is_accepted`: whether a response with a 2xx
        status took the order. `is_busy`: whether a refusal means that the same order may be accepted later. 429 always
        does. `describe` puts a refusal into words.
        """
        try:
            response = await self.request(method, path, form=form, json=json)
        except NoResponse as error:
            if error.maybe_received:
                return Unknown(str(error))
            return Rejected(str(error), retry_after=UNREACHABLE_RETRY_SECONDS)
        if response.ok and is_accepted(response):
            found = reference(response)
            return Accepted(found) if found else Unknown(f"{self.name} did not name the call: {response.description}")
        if response.status == 429 or is_busy(response):
            return Rejected(f"{self.name} is busy: {describe(response)}", retry_after=response.retry_after)
        if response.status >= 500 or response.status == 408:
            return Unknown(f"{self.name} answered {response.description}")
        if response.status in (401, 403):
            return Rejected(f"{self.name} refuses the credentials, or this account may not call: {describe(response)}")
        return Rejected(f"{self.name} refused the call: {describe(response)}")

    async def download(self, url: str) -> RestDownload:
        """Download a file from an URL, or from a path behind the base URL. Raises `ProviderError`, and
        `DownloadRefused` if the response is not 200."""
        target = self._url(url)
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._open(target)
            if response.status == 200:
                return RestDownload(_media_type(response.headers.get("Content-Type", "")), self._chunks(response))
            location = response.headers.get("Location")
            response.release()
            if response.status not in (301, 302, 303, 307, 308) or not location:
                raise DownloadRefused(f"{self.name} answered {response.status} for a file", response.status)
            target = self._redirected(target, location)
        raise ProviderError(f"{self.name} redirects a file too often")

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:  # a session needs a running loop, and there is none where adapters are created
            self._opened = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=LONGEST_SECONDS, connect=_CONNECT_SECONDS),
                connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=_KEEPALIVE_SECONDS),
            )
        return self._opened

    def _url(self, path: str) -> URL:
        return URL(path if path.startswith(("https://", "http://")) else self.base_url + path)

    def _headers_for(self, url: URL) -> dict[str, str]:
        """The credentials, for an URL of the provider's own."""
        domain = self._own_domain
        is_own = domain is not None and url.scheme == "https" and f".{url.host}".endswith(f".{domain}")
        is_origin = self.base_url and url.origin() == URL(self.base_url).origin()
        return self._credentials if is_own or is_origin else {}

    def _place(self, path: str) -> str:
        """Where the request went, without its query, which may hold a secret."""
        return self.base_url or path.partition("?")[0]

    def _redirected(self, source: URL, location: str) -> URL:
        try:
            target = source.join(URL(location))
        except ValueError as error:
            raise ProviderError(f"{self.name} redirects a file to an unusable address") from error
        if target.scheme not in ("https", "http") or (source.scheme == "https" and target.scheme != "https"):
            raise ProviderError(f"{self.name} redirects a file from {source.scheme} to {target.scheme}")
        return target

    async def _open(self, url: URL) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        try:
            return await self._session().get(
                url, headers=self._headers_for(url), allow_redirects=False, timeout=timeout
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProviderError(f"{self.name} did not send a file: {_reason(error)}") from error

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async with response:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProviderError(f"{self.name} did not send all of a file: {_reason(error)}") from error


class UnknownWords:
    """Warns once of each word of a provider that its adapter does not know."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[tuple[str, str]] = set()

    def warn(self, what: str, word: object) -> None:
        """`what` is the thing that has the word, as "status of a call"."""
        entry = what, str(word)
        if entry not in self._seen and len(self._seen) < 100:  # each word is kept, and may be anything
            self._seen.add(entry)
            logging.getLogger("ringback").warning(
                "%s: unknown %s %r. The call keeps its status until another comes", self._name, *entry
            )


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    return list(fields.items() if isinstance(fields, Mapping) else fields)


def _parsed(text: str) -> Any:
    try:
        return json_module.loads(text)
    except ValueError:
        return text


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
