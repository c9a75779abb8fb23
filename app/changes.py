"""Tells that something about a call has changed, so that a console or a client that waits learns of it at once.

The transaction that changes a call notes it. Once it is committed, `Hints` publishes the call's id in Valkey. Whoever
follows reads the truth in PostgreSQL. Losing such a message costs a console seconds, and a client the time it waits.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import structlog
from arq.connections import ArqRedis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

log = structlog.get_logger()

CHANNEL = "ringback:changes"
"""The channel in Valkey. A message is the ids of calls, with blanks between."""

_NOTED = "changed_calls"

_RETRY_SECONDS = 2.0
_PING_SECONDS = 10.0
_IDLE_SECONDS = 60.0
"""How long the channel is followed after the last listener has left. Clients that wait come back."""


def note(session: AsyncSession, call_id: str) -> None:
    """Something about this call changes: its status, its history, its transcript, its recording or a callback."""
    session.info.setdefault(_NOTED, set()).add(call_id)


def take(session: AsyncSession) -> set[str]:
    """What a committed session has noted."""
    noted: set[str] = session.info.pop(_NOTED, set())
    return noted


Listener = Callable[[Collection[str] | None], None]
"""Receives the ids of calls that have changed. None: some may have been missed."""


class ChangeFeed:
    """The changes of all calls, for the listeners of this process. It follows the channel while there are any."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._listeners: Counter[Listener] = Counter()
        self._following: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._idle_at = 0.0
        self._stopped = False

    @property
    def is_connected(self) -> bool:
        """Whether listeners receive changes now. Else they have to look for themselves."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait until listeners receive each change from now on, or the process is about to stop."""
        await self._connected.wait()

    def stop(self) -> None:
        """Let nobody wait for a connection any more. May be called from a signal handler."""
        self._stopped = True
        self._connected.set()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call the listener with changes, within the block: once for each, however many blocks it has."""
        self._listeners[listener] += 1
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self._listeners[listener] -= 1
            if not self._listeners[listener]:
                del self._listeners[listener]
            self._idle_at = asyncio.get_running_loop().time() + _IDLE_SECONDS

    async def aclose(self) -> None:
        """Stop following."""
        self.stop()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    @property
    def _is_wanted(self) -> bool:
        return not self._stopped and (bool(self._listeners) or asyncio.get_running_loop().time() < self._idle_at)

    async def _follow(self) -> None:
        missed = False
        while self._is_wanted:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    self._connected.set()
                    if missed:
                        self._tell(None)
                    await self._read(channel)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("changes_not_followed", problem=repr(error))
                missed = True
                self._disconnected()
                self._tell(None)
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                self._disconnected()

    def _disconnected(self) -> None:
        if not self._stopped:
            self._connected.clear()

    async def _read(self, channel: PubSub) -> None:
        """Read until nobody listens. Raises `TimeoutError` when Valkey is silent: it may be frozen, or its address may
        have moved."""
        loop = asyncio.get_running_loop()
        ping_at, was_pinged = loop.time() + _PING_SECONDS, False
        while self._is_wanted:
            message = await channel.get_message(timeout=1.0)
            if message is not None:
                was_pinged = False
                if message["type"] == "message":
                    self._tell(message["data"].decode().split())
            if loop.time() > ping_at:
                if was_pinged:
                    raise TimeoutError("Valkey does not answer")
                await channel.ping()
                ping_at, was_pinged = loop.time() + _PING_SECONDS, True

    def _tell(self, changed: Collection[str] | None) -> None:
        for listener in list(self._listeners):
            listener(changed)
