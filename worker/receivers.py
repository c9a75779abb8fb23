"""How a worker's requests are shared among the receivers of callbacks, so that none, slow or dead, delays another's.

A receiver may have so many at once, but never more than are still free: the more are slow, the less each can take, and
some are always left. One that gave no answer is only tried by one request at a time, and all such together by half.
Whoever is turned away is told when to come back, spread over the time in which places become free.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from cachetools import LRUCache

from app.outbound import AddressRefused, OutboundError

T = TypeVar("T")

_REMEMBERED = 10_000
_SHORTEST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 20.0
"""So soon a receiver that is back is noticed, however many wait for it."""


@dataclass(slots=True)
class _Receiver:
    under_way: int = 0
    silent: bool = False
    """Its last request got no answer."""
    seconds: float = 1.0
    """How long its last request took."""
    next_place: float = 0.0
    """When the next who is turned away may find a place, by the monotonic clock."""


class Receivers:
    """One for each worker process. Receivers are told apart by host and port."""

    def __init__(self, at_once: int, *, each: int) -> None:
        """So many requests may be under way in all, and to each receiver."""
        self._at_once = at_once
        self._each = each
        self._under_way = 0
        self._known: LRUCache[str, _Receiver] = LRUCache(_REMEMBERED)

    def wait(self, name: str) -> float:
        """In how many seconds to come back with a request to this receiver; 0: it can be sent now."""
        receiver = self._known.setdefault(name, _Receiver())
        share = self._share(receiver)
        if receiver.under_way < share:
            return 0.0
        now = monotonic()
        receiver.next_place = max(receiver.next_place, now) + receiver.seconds / max(1, share)
        wait = min(max(receiver.next_place - now, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)
        return wait * random.uniform(1, 1.5)

    def _share(self, receiver: _Receiver) -> int:
        free = self._at_once - self._under_way
        if receiver.silent:
            return 1 if free > self._at_once // 2 else 0
        return min(self._each, free)

    async def send(self, name: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make this request, for which there was a place. Raises what it raises."""
        receiver = self._known.setdefault(name, _Receiver())
        began = monotonic()
        receiver.under_way += 1
        self._under_way += 1
        try:
            answer = await request()
        except OutboundError as error:
            receiver.silent = not isinstance(error, AddressRefused)
            raise
        else:
            if receiver.silent:
                receiver.next_place = 0.0
            receiver.silent = False
            return answer
        finally:
            receiver.seconds = monotonic() - began
            receiver.under_way -= 1
            self._under_way -= 1
