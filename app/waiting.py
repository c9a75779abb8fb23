"""Requests that wait for news of a call, instead of asking again and again.

A waiting request holds a place in a table and no connection to PostgreSQL. When the call has changed, it reads the
truth once more. So a lost message costs no more than the time that the client was ready to wait.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from app.changes import ChangeFeed

LONGEST_SECONDS = 60.0
MOST_WAITING = 5000
"""So many requests wait in one process. More are answered at once."""
MOST_WAITING_OF_USER = 2500

_UNCONNECTED_SECONDS = 2.0
"""How often a request looks for itself while Valkey is away: as often as a client that polls."""
_SPREAD_SECONDS = 1.0
"""When messages may have been missed, all look, but not all at once."""

View = TypeVar("View")


class Waiters:
    """The waiting requests of this process."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._of_user: Counter[str] = Counter()
        self._stopped = False

    def stop(self) -> None:
        """Let all requests be answered now, because the process is about to stop. May be called from a signal
        handler."""
        self._stopped = True
        self._wake(None)

    async def wait_for_news(
        self,
        read: Callable[[], Awaitable[View]],
        *,
        call_id: str,
        user_id: str,
        shown: Callable[[View], object],
        is_final: Callable[[View], bool],
        seconds: float,
    ) -> View:
        """What `read` returns once it shows something else than at first, or is final, or the time is over.

        `shown` is what the client sees of it. Raises what `read` raises.
        """
        if self._stopped or self._of_user.total() >= MOST_WAITING or self._of_user[user_id] >= MOST_WAITING_OF_USER:
            return await read()
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_SECONDS)
        changed = asyncio.Event()
        waiting_for_call = self._waiting.setdefault(call_id, set())
        waiting_for_call.add(changed)
        self._of_user[user_id] += 1
        try:
            with self._feed.listening(self._wake):
                first = view = await read()
                while not self._stopped and not is_final(view) and shown(view) == shown(first):
                    if not await self._wait(changed, until):
                        return await read()
                    view = await read()
                return view
        finally:
            waiting_for_call.discard(changed)
            if not waiting_for_call:
                self._waiting.pop(call_id, None)
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]

    async def _wait(self, changed: asyncio.Event, until: float) -> bool:
        """Wait until the call may have changed. False if the time is over."""
        loop = asyncio.get_running_loop()
        look_at = until if self._feed.is_connected else min(until, loop.time() + _UNCONNECTED_SECONDS)
        try:
            async with asyncio.timeout_at(look_at):
                await changed.wait()
        except TimeoutError:
            return look_at < until
        changed.clear()
        return True

    def _wake(self, changed: Collection[str] | None) -> None:
        if changed is None:
            loop = asyncio.get_running_loop()
            for events in self._waiting.values():
                for event in events:
                    if self._stopped:
                        event.set()
                    else:
                        loop.call_later(random.uniform(0, _SPREAD_SECONDS), event.set)
            return
        for call_id in changed:
            for event in self._waiting.get(call_id, ()):
                event.set()
