"""The tasks that this worker runs: so many at once, whether arq's queue or the sweep brought them."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_CLAIM_SECONDS = 1.0
"""A stopping worker waits this long for a claim that is under way: a database that is frozen does not answer it."""


class Slots:
    """Counts what runs. Whoever is about to claim tasks reserves slots first, so that two never take the same one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reserved = 0
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def running(self) -> int:
        """How many tasks are under way."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many more may be started now."""
        return max(0, self._size - self._reserved - len(self._running))

    def reserve(self) -> int:
        """Keep some free slots for the caller, until it calls `release` with the number that this returns.

        Half of them, because others need one meanwhile; of a single one, that. 0 if none is free.
        """
        count = (self.free + 1) // 2
        self._reserved += count
        return count

    def release(self, count: int) -> None:
        """Give reserved slots back."""
        self._reserved -= count
        self._changed.set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in a slot. It outlives the caller."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def wait(self) -> None:
        """Returns as soon as a slot is free."""
        while not self.free:
            await self._next_change()

    def close(self) -> None:
        """No slot is free from now on."""
        self._size = 0

    async def drain(self, seconds: float) -> None:
        """Wait for what is running, this long at most. What is left then is another worker's after its lease."""
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
