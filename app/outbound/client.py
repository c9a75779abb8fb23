"""The HTTP client for URLs that clients choose.

These URLs must not reach this machine or its network. Every resolved address is checked, and the one the socket
connects to is checked again, because DNS may change in between. A redirect of a download is a new request with the same
checks. Callbacks do not follow redirects. Proxies of the environment are not used.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from time import monotonic, time
from typing import Any

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.outbound.addresses import Network, is_public
from app.outbound.base import (
    LONGEST_DOWNLOAD_SECONDS,
    AddressRefused,
    Download,
    DownloadTooLarge,
    Gone,
    NotThere,
    OutboundError,
    OutboundResponse,
    RedirectRefused,
)
from app.outbound.content import CHUNK_BYTES, decoded, limited
from app.outbound.urls import parse, redirected

_SHOWN_BYTES = 300
_LOOKUPS_AT_ONCE = 128
_STALLED_SECONDS = 60.0
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5


class Outbound:
    """One per process."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        """`allowed`: networks that may be reached although they are not public."""
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, timeout: float) -> OutboundResponse:
        """Send a body. A redirect is returned like any response. Raises `OutboundError`."""
        limits = aiohttp.ClientTimeout(total=timeout)
        async with self._request("POST", parse(url), limits, data=body, headers=headers) as response:
            shown = await response.content.read(_SHOWN_BYTES)
            text = shown.decode("utf-8", "replace").replace("\0", "")
            return OutboundResponse(response.status, _retry_after(response), text)

    @asynccontextmanager
    async def download(self, url: str, *, max_bytes: int) -> AsyncIterator[Download]:
        """Download a file, while the block runs. Follows up to five redirects, and undoes `Content-Encoding`.

        Raises `OutboundError`, also while the chunks are read: if there are more than `max_bytes` before decoding, if
        they end early, and if everything takes longer than `LONGEST_DOWNLOAD_SECONDS`.
        """
        deadline = monotonic() + LONGEST_DOWNLOAD_SECONDS
        # for this download alone, because some stores set a cookie and redirect
        cookies = aiohttp.CookieJar(unsafe=True)
        place = parse(url)
        for hop in range(_MOST_REDIRECTS + 1):
            limits = aiohttp.ClientTimeout(
                total=max(1.0, deadline - monotonic()), sock_connect=_STALLED_SECONDS, sock_read=_STALLED_SECONDS
            )
            sent = {name: morsel.value for name, morsel in cookies.filter_cookies(place).items()}
            try:
                async with self._request("GET", place, limits, cookies=sent) as response:
                    if response.status not in _REDIRECTS:
                        yield _download(response, place, max_bytes)
                        return
                    cookies.update_cookies(response.cookies, place)
                    place = redirected(place, response.headers.get("Location", ""))
            except OutboundError as error:
                if hop:
                    error.no_answer = False  # the host in the URL did respond
                raise
        raise RedirectRefused(f"the server redirected more than {_MOST_REDIRECTS} times")

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, timeout: aiohttp.ClientTimeout, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._client().request(
                method, url, timeout=timeout, allow_redirects=False, **options
            ) as response:
                yield response
        except OutboundError:
            raise
        except TimeoutError as error:
            raise OutboundError("the server did not answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise NotThere("what the server sent was cut short") from error
        except aiohttp.ClientResponseError as error:  # its text has the URL, which may be a secret
            why = error.message.partition("\n")[0].rstrip(":")  # the lines after the first one quote the response
            raise NotThere(f"the server's answer is no HTTP: {why[:_SHOWN_BYTES]}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = _refusal(error)
            raise refused or OutboundError(str(error) or type(error).__name__) from error

    def check(self, host: str) -> None:
        """Check an address of a resolver or a socket. Raises `AddressRefused` if no client may use it."""
        address = ip_address(host.partition("%")[0])
        if is_public(address) or any(address.version == net.version and address in net for net in self._allowed):
            return
        raise AddressRefused(f"{address} is not a public address. RINGBACK_OUTBOUND_NETWORKS can allow it")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckedResolver(self),
                socket_factory=self._open_socket,
                use_dns_cache=False,
                force_close=True,
                limit=0,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _open_socket(self, info: AddrInfoType) -> socket.socket:
        """Connect to an address, whether a name resolved to it or the URL contains it."""
        family, kind, protocol, _, (host, *_) = info
        self.check(str(host))
        return socket.socket(family, kind, protocol)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _CheckedResolver(AbstractResolver):
    """Refuses a name if one of its addresses is refused. Uses its own threads, because a name with silent servers
    blocks one for half a minute, and the event loop's few threads have other work."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        looking = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, looking)
        for *_, address in found:
            self._outbound.check(str(address[0]))
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _download(response: aiohttp.ClientResponse, place: URL, max_bytes: int) -> Download:
    if response.status == 410:
        raise Gone("the server answered 410: the file is gone")
    if response.status not in (200, 203):
        error = NotThere(f"the server answered {response.status}")
        error.retry_after = _retry_after(response)
        raise error
    if (response.content_length or 0) > max_bytes:
        raise DownloadTooLarge(f"the file is larger than {max_bytes} bytes")
    chunks = limited(response.content.iter_chunked(CHUNK_BYTES), max_bytes)
    chunks = decoded(chunks, response.headers.getall("Content-Encoding", ()), max_bytes)
    return Download(response.headers.get("Content-Type", ""), str(place.with_user(None)), chunks)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """The header's value in seconds from now, in either of its forms. 0 if there is none."""
    said = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(said) if said.isdigit() else parsedate_to_datetime(said).timestamp() - time()
    except (ValueError, OverflowError, TypeError):
        return 0.0
    return max(0.0, seconds)


def _refusal(error: BaseException | None) -> AddressRefused | None:
    """The refusal inside an error of aiohttp."""
    while error is not None and not isinstance(error, AddressRefused):
        error = error.__cause__ or getattr(error, "os_error", None)
    return error
