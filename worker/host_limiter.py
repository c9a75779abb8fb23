"""How a worker's requests are shared among the hosts that clients named, so that none, slow or dead, delays another's.

A host may have so many at once, but never more than are still free: the more are slow, the less each can take, and some
are always left. One that gave no answer is only tried by one request at a time, and all such together by half. Whoever
is turned away is told when to come back; they come back one after another, so that a long line costs little.
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
"""At most this far apart those who were turned away come back: twenty a second, to one host, or to all silent ones."""


@dataclass(slots=True)
class _Host:
    under_way: int = 0
    silent_since: float | None = None
    """When a request first got no answer, by the monotonic clock; None: its last one got one."""
    seconds: float = 1.0
    """How long its last request took."""
    next_turn: float = 0.0
    """When the last of those who were turned away comes back, by the monotonic clock."""


class HostLimiter:
    """One for each kind of request of a worker process. Hosts are told apart by name and port."""

    def __init__(self, at_once: int, *, each: int) -> None:
        """So many requests may be under way in all, and to each host."""
        self._at_once = at_once
        self._each = each
        self._under_way = 0
        self._known: LRUCache[str, _Host] = LRUCache(_REMEMBERED)
        self._silent = _Host()  # those who wait for a silent host stand in one line, whichever it is

    def wait(self, name: str) -> float:
        """In how many seconds to come back with a request to this host; 0: it can be made now."""
        host = self._known.setdefault(name, _Host())
        share = self._share(host)
        if host.under_way < share:
            return 0.0
        now = monotonic()
        line, spacing = host, min(host.seconds / max(1, share), _SPACING_SECONDS)
        if host.silent_since is not None:
            line, spacing = self._silent, _SPACING_SECONDS
        line.next_turn = max(line.next_turn, now) + spacing
        return max(line.next_turn - now, _SHORTEST_WAIT_SECONDS) * random.uniform(1, 1.2)

    def silent_for(self, name: str) -> float:
        """For how many seconds the host has given no answer to anything; 0: its last request got one."""
        since = self._known.setdefault(name, _Host()).silent_since
        return 0.0 if since is None else monotonic() - since

    def _share(self, host: _Host) -> int:
        free = self._at_once - self._under_way
        if host.silent_since is not None:
            return 1 if free > self._at_once // 2 else 0
        return min(self._each, free)

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[None]:
        """The block makes a request to the host, for which there was a place."""
        host = self._known.setdefault(name, _Host())
        began = monotonic()
        host.under_way += 1
        self._under_way += 1
        try:
            yield
        except OutboundError as error:
            host.silent_since = (host.silent_since or began) if error.no_answer else None
            raise
        else:
            host.silent_since = None
        finally:
            host.seconds = monotonic() - began
            host.under_way -= 1
            self._under_way -= 1
