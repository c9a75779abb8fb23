"""Limits a worker's requests per host, so that a slow or dead host does not delay requests to others. Clients name the
hosts.

A host gets a fixed number of requests at once, but never more than are still free. So the more hosts are slow, the less
each gets, and some requests always stay free. A host that gave no response gets one request at a time, and all such
hosts together at most half. A request without capacity gets the time to come back. These times are spaced, so that a
long line costs little.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from cachetools import LRUCache

from app.outbound import OutboundError

_REMEMBERED = 10_000
_SHORTEST_WAIT_SECONDS = 0.2
_SPACING_SECONDS = 0.05
"""The longest distance between two requests that come back: twenty per second for one host, or for all silent hosts."""


@dataclass(slots=True)
class _Host:
    in_flight: int = 0
    silent_since: float | None = None
    """When a request first got no response, by the monotonic clock. None: the last request got one."""
    seconds: float = 1.0
    """How long the last request took."""
    next_turn: float = 0.0
    """When the last waiting request comes back, by the monotonic clock."""


class HostLimiter:
    """The limiter for one kind of request of a worker process. A host is a name and a port."""

    def __init__(self, at_once: int, *, each: int) -> None:
        """`at_once` is the number of requests in total, `each` the number per host."""
        self._at_once = at_once
        self._each = each
        self._in_flight = 0
        self._known: LRUCache[str, _Host] = LRUCache(_REMEMBERED)
        self._silent = _Host()  # requests to silent hosts share one line

    def wait(self, name: str) -> float:
        """In how many seconds to come back with a request to this host. 0: send it now."""
        host = self._known.setdefault(name, _Host())
        share = self._share(host)
        if host.in_flight < share:
            return 0.0
        now = monotonic()
        line, spacing = host, min(host.seconds / max(1, share), _SPACING_SECONDS)
        if host.silent_since is not None:
            line, spacing = self._silent, _SPACING_SECONDS
        line.next_turn = max(line.next_turn, now) + spacing
        return max(line.next_turn - now, _SHORTEST_WAIT_SECONDS) * random.uniform(1, 1.2)

    def unresponsive_seconds(self, name: str) -> float:
        """For how many seconds the host has given no response. 0: the last request got one."""
        since = self._known.setdefault(name, _Host()).silent_since
        return 0.0 if since is None else monotonic() - since

    def _share(self, host: _Host) -> int:
        free = self._at_once - self._in_flight
        if host.silent_since is not None:
            return 1 if free > self._at_once // 2 else 0
        return min(self._each, free)

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[None]:
        """Counts a request to the host while the block runs. `wait` has returned 0 for it."""
        host = self._known.setdefault(name, _Host())
        began = monotonic()
        host.in_flight += 1
        self._in_flight += 1
        try:
            yield
        except OutboundError as error:
            host.silent_since = (host.silent_since or began) if error.no_answer else None
            raise
        else:
            host.silent_since = None
        finally:
            host.seconds = monotonic() - began
            host.in_flight -= 1
            self._in_flight -= 1
