"""The tasks that a worker runs at once, whether a hint or the sweep brought them."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_CLAIM_SECONDS = 1.0
"""How long a stopping worker waits for a claim that has begun. A frozen database does not answer it."""


class Slots:
    """Counts running tasks. The caller reserves slots before it claims tasks, so that no slot is used twice."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reserved = 0
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def running(self) -> int:
        """How many tasks are running."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many more can start now."""
        return max(0, self._size - self._reserved - len(self._running))

    def reserve(self) -> int:
        """Reserve free slots, until the caller calls `release` with the number that this returns.

        At most half of the free slots are reserved, but at least one, because others need slots meanwhile. 0 if none is
        free.
        """
        count = (self.free + 1) // 2
        self._reserved += count
        return count

    def release(self, count: int) -> None:
        """Release reserved slots."""
        self._reserved -= count
        self._changed.set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in a slot. It goes on after the caller ends."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def wait(self) -> bool:
        """Returns as soon as a slot is free. False: nothing is started any more."""
        while self._size and not self.free:
            await self._next_change()
        return self._size > 0

    def close(self) -> None:
        """Start nothing more."""
        self._size = 0
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Wait for running tasks, for at most `seconds`. Another worker does the rest after their leases run out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _CLAIM_SECONDS)):
                while self._reserved:
                    await self._next_change()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:
                    await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
