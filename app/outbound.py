"""Requests to addresses that clients named: callbacks, and recordings to fetch. A leaf.

What a client names must not reach into this machine or its network. So every address that a name has is checked, and
once more the one that a socket is about to be opened to, however it was written; nothing is kept between two requests
that could be another by then; redirects are not followed, and no proxy of the environment is asked.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SHOWN_BYTES = 300
_LOOKUPS_AT_ONCE = 128
_STALLED_SECONDS = 60.0
_LONGEST_DOWNLOAD_SECONDS = 3600.0

# Python's `is_global` lets these pass.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # a cloud's own services
        "2001::/23",  # Teredo and other protocol assignments
        "2002::/16",  # 6to4: an IPv4 address inside
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")


class OutboundError(Exception):
    """The request could not be made, or not to its end; the text tells a person why."""

    no_answer = True
    """Whether nobody answered, or not in time."""


class AddressRefused(OutboundError, OSError):
    """This is no address that a client may name. An OSError, as aiohttp hands on no other."""

    no_answer = False


class NotThere(OutboundError):
    """It answered, but there is nothing to be had."""

    no_answer = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `text` is the beginning of its body."""

    status: int
    retry_after: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is coming in."""

    content_type: str
    chunks: AsyncIterator[bytes]


def parse_networks(networks: str) -> list[Network]:
    """Of a comma-separated list. Raises ValueError."""
    return [ip_network(part.strip()) for part in networks.split(",") if part.strip()]


def host_of(url: str) -> str:
    """Who answers for this URL, with the port, as requests read it. Raises ValueError if nobody can."""
    host = URL(url).host_port_subcomponent
    if not host:
        raise ValueError("it names no host")
    return host


def is_public(address: Address) -> bool:
    """Whether this address is of the public Internet and of nothing else."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _PUBLIC_IPV6:
            return False
    inside = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not address.is_reserved and not inside


class Outbound:
    """One for each process."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        """`allowed`: networks that may be reached though they are not public."""
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, timeout: float) -> Answer:
        """Send this. Raises `OutboundError`."""
        async with self._request("POST", url, aiohttp.ClientTimeout(total=timeout), body, headers) as response:
            shown = await response.content.read(_SHOWN_BYTES)
            text = shown.decode("utf-8", "replace").replace("\0", "")
            return Answer(response.status, response.headers.get("Retry-After"), text)

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download]:
        """A file, while the block lasts. Raises `OutboundError`, also while its chunks are read."""
        timeout = aiohttp.ClientTimeout(
            total=_LONGEST_DOWNLOAD_SECONDS, sock_connect=_STALLED_SECONDS, sock_read=_STALLED_SECONDS
        )
        async with self._request("GET", url, timeout) as response:
            if response.status != 200:
                raise NotThere(f"it answered {response.status}")
            yield Download(response.content_type, response.content.iter_chunked(64 * 1024))

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._client().request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError as error:
            raise OutboundError("it did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = _refusal(error)
            raise refused or OutboundError(str(error) or type(error).__name__) from error

    def check(self, host: str) -> None:
        """Of an address as a resolver or a socket has it. Raises `AddressRefused` if no client may name it."""
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
        """To an address that a name has, or that was written as one, for which no resolver is asked."""
        family, kind, protocol, _, (host, *_) = info
        self.check(str(host))
        return socket.socket(family, kind, protocol)

    async def aclose(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()


class _CheckedResolver(AbstractResolver):
    """One address that is refused refuses the name. With threads of its own: a name whose servers are silent holds one
    for half a minute, and the event loop's few are for everything else too."""

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


def _refusal(error: BaseException | None) -> AddressRefused | None:
    """The refusal behind what aiohttp made of it."""
    while error is not None and not isinstance(error, AddressRefused):
        error = error.__cause__ or getattr(error, "os_error", None)
    return error
