"""Clients that order calls and poll them all the time, while something happens to the installation.

They behave as behind a load balancer. If a connection is refused, or closed before there is an answer, they try the
next address, with the same Idempotency-Key. After a 503 they try again. Whatever else goes wrong is a failure.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx

_LOGIN, _ORDER = "/api/developer/login", "/api/developer/calls/click2call"
_TRANSCRIPT = "/api/developer/calls/{}/transcript"
_NO_ANSWER = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_PAUSE_SECONDS = 0.05


class SteadyLoad:
    """Clients of one user. Orders go on until `stop`."""

    def __init__(
        self,
        addresses: Sequence[str],
        new_order: Callable[[], dict[str, str]],
        *,
        orders_per_second: float = 5.0,
        polls_per_second: float = 20.0,
        timeout: float = 10.0,
    ) -> None:
        """`addresses` are base URLs."""
        self.addresses = addresses
        self.accepted: set[str] = set()
        self.failures: list[str] = []
        """Answers that no client should see."""
        self.refused = 0
        """Answers with 503, which ask to try again."""
        self.moved = 0
        """How often a client went to another address."""
        self.requests = 0
        self.order_times: list[float] = []
        """When orders were accepted, by `time.monotonic`."""
        self._new_order = new_order
        self._order_pause = 1 / orders_per_second
        self._poll_pause = 1 / polls_per_second
        self._client = httpx.AsyncClient(timeout=timeout, trust_env=False)
        self._stopped = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    async def start(self, email: str, password: str) -> None:
        """Log in, and begin."""
        answer = await self._client.post(self.addresses[0] + _LOGIN, json={"email": email, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['data']['access_token']}"
        self._running = [asyncio.create_task(self._order_steadily()), asyncio.create_task(self._poll_steadily())]

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.gather(*self._running)
        await self._client.aclose()

    async def accept(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until so many more orders were accepted."""
        wanted = len(self.accepted) + count
        async with asyncio.timeout(seconds):
            while len(self.accepted) < wanted:
                await asyncio.sleep(_PAUSE_SECONDS)

    def longest_gap(self, since: float) -> float:
        """The longest time without an accepted order, in seconds, from this moment on."""
        times = [since, *(accepted for accepted in self.order_times if accepted > since)]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    async def _order_steadily(self) -> None:
        """A slow answer delays no other order, as with many clients."""
        async with asyncio.TaskGroup() as group:
            while not self._stopped.is_set():
                group.create_task(self._order())
                await self._pause(self._order_pause)

    async def _order(self) -> None:
        answer = await self._request("POST", _ORDER, self._new_order())
        if answer is not None:
            self.accepted.add(answer.json()["data"]["call_id"])
            self.order_times.append(time.monotonic())

    async def _poll_steadily(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._stopped.is_set():
                for call_id in list(self.accepted)[-3:]:
                    group.create_task(self._poll(call_id))
                    await self._pause(self._poll_pause)
                await self._pause(self._poll_pause)

    async def _poll(self, call_id: str) -> None:
        await self._request("GET", _TRANSCRIPT.format(call_id))

    async def _request(self, method: str, path: str, order: dict[str, str] | None = None) -> httpx.Response | None:
        """The answer, after as many tries as it takes. None: it is a failure, or the clients were stopped."""
        headers = {"Idempotency-Key": secrets.token_hex(8)} if order else {}
        for address in itertools.cycle(self.addresses):
            self.requests += 1
            try:
                answer = await self._client.request(method, address + path, json=order, headers=headers)
            except _NO_ANSWER:
                self.moved += 1
            except httpx.TimeoutException:
                self.refused += 1
            else:
                if answer.status_code == 200:
                    return answer
                if answer.status_code != 503:
                    self.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
                    return None
                self.refused += 1
            if self._stopped.is_set():
                return None
            await asyncio.sleep(_PAUSE_SECONDS)
        return None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
