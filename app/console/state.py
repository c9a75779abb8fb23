"""What the console keeps in the process: open pages, and what took time to find out."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from fastapi import Request

from app.console.live import Streams
from app.figures import DayFigures
from app.installation import StorageUse
from app.telephony.base import Finding

_FIGURES_SECONDS = 10.0
_STORAGE_SECONDS = 300.0

FiguresKey = tuple[str | None, datetime]
"""Whose figures (None: of all users), and the midnight of the day."""


@dataclass(slots=True)
class ConsoleState:
    streams: Streams
    checks: dict[str, list[Finding]] = field(default_factory=dict)
    """What the last check of each telephony provider found."""
    _figures: dict[FiguresKey, tuple[float, DayFigures]] = field(default_factory=dict)
    _storage: StorageUse | None = None
    _storage_at: float = -_STORAGE_SECONDS
    _measuring: "asyncio.Task[None] | None" = None

    async def figures(self, key: FiguresKey, read: Callable[[], Awaitable[DayFigures]]) -> DayFigures:
        """The figures of a day. Whoever looks at the same ones within some seconds shares them."""
        now = time.monotonic()
        self._figures = {key: (at, found) for key, (at, found) in self._figures.items() if now - at < _FIGURES_SECONDS}
        if key not in self._figures:
            self._figures[key] = now, await read()
        return self._figures[key][1]

    def storage(self, measure: Callable[[], Awaitable[StorageUse]]) -> StorageUse | None:
        """The storage that recordings take, or None until it is known. It is measured beside the page, because that
        reads every recording's row."""
        is_old = time.monotonic() - self._storage_at >= _STORAGE_SECONDS
        if is_old and (self._measuring is None or self._measuring.done()):
            self._measuring = asyncio.create_task(self._measure(measure))
        return self._storage

    async def _measure(self, measure: Callable[[], Awaitable[StorageUse]]) -> None:
        self._storage = await measure()
        self._storage_at = time.monotonic()

    async def aclose(self) -> None:
        """End what runs."""
        await self.streams.aclose()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)


def get_state(request: Request) -> ConsoleState:
    return cast(ConsoleState, request.app.state.console)
