"""Which lanes have a gate that is shut, and until when, as this worker last saw them.

The database decides (`app.lanes`). This only saves questions: a hint for a shut lane is dropped, and the sweep looks
again when the gate opens.
"""

import asyncio
from contextlib import suppress
from time import monotonic


class Gates:
    """The gates of one worker."""

    def __init__(self) -> None:
        self._opens_at: dict[str, float] = {}
        self._changed = asyncio.Event()

    def is_shut(self, lane: str) -> bool:
        """Whether the lane's gate is shut."""
        return self._opens_at.get(lane, 0.0) > monotonic()

    def shut(self, lane: str, seconds: float) -> None:
        """The lane's gate is shut for so long."""
        self._opens_at[lane] = monotonic() + seconds
        self._changed.set()

    async def wait(self, longest: float, *, since: float) -> None:
        """Returns when a gate opens that was shut at the time `since`, or later, or after `longest` seconds. `since` is
        by the monotonic clock. A gate that has opened meanwhile counts."""
        deadline = monotonic() + longest
        while (left := self._next_opening(deadline, since) - monotonic()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _next_opening(self, deadline: float, since: float) -> float:
        return min([deadline, *(opens_at for opens_at in self._opens_at.values() if opens_at > since)])
