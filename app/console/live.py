"""Live pages: one follower in each API process tells every open page what has changed.

It listens to `app.changes` while a page is open, gathers for a moment, reads the changed calls in one statement, and
makes each row once for all who see it alike. So an open page costs one small message now and then, and no query.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog

from app import browser_logins, call_lists
from app.call_lists import ListedCall
from app.changes import ChangeFeed
from app.console.pages import render_row
from app.console.session import Viewer
from app.db import Database, is_unreachable

log = structlog.get_logger()

_GATHER_SECONDS = 1.0
_GATHER_SECONDS_PER_STREAM = 0.005
"""With many open pages each is updated less often, so that together they cost little."""
_HEARTBEAT_SECONDS = 20.0
_LOGINS_SECONDS = 20.0
"""How often the logins of open pages are checked."""
_MOST_PER_LOGIN = 20
_MOST_STREAMS = 1000
_MOST_AT_ONCE = 200
"""With more changed calls at once, a list is loaded again instead."""

_RELOAD = b"event: reload\ndata: \n\n"
_CHANGED = b"event: changed\ndata: \n\n"
_BEAT = b": \n\n"


class TooManyStreams(Exception):
    """This login, or this process, has too many open pages. They work without being live."""


@dataclass(eq=False, slots=True)
class Stream:
    """One open page."""

    viewer: Viewer
    all_users: bool
    """A list of all users' calls."""
    call_id: str | None = None
    """The call of the page. None: the page is a list."""
    messages: "asyncio.Queue[bytes | None]" = field(default_factory=lambda: asyncio.Queue(maxsize=8))

    def send(self, message: bytes | None) -> None:
        """Send it. A browser that reads too slowly loads its page again. None ends the stream."""
        try:
            self.messages.put_nowait(message)
        except asyncio.QueueFull:
            while not self.messages.empty():
                self.messages.get_nowait()
            self.messages.put_nowait(_RELOAD if message is not None else None)


class Streams:
    """The open pages of this process."""

    def __init__(self, db: Database, feed: ChangeFeed) -> None:
        self._db = db
        self._feed = feed
        self._streams: set[Stream] = set()
        self._following: asyncio.Task[None] | None = None
        self._stopped = False
        self._changed: set[str] = set()

    def stop(self) -> None:
        """End all streams, because the process is about to stop. May be called from a signal handler."""
        self._stopped = True
        for stream in list(self._streams):
            stream.send(None)

    async def aclose(self) -> None:
        """Stop following."""
        self.stop()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def open(self, viewer: Viewer, *, all_users: bool = False, call_id: str | None = None) -> AsyncIterator[bytes]:
        """Server-sent events for a page: `rows` with the changed rows of a list, `changed` for the page of a call,
        `reload`. Raises `TooManyStreams`."""
        mine = sum(stream.viewer.login.claims.session_id == viewer.login.claims.session_id for stream in self._streams)
        if self._stopped or mine >= _MOST_PER_LOGIN or len(self._streams) >= _MOST_STREAMS:
            raise TooManyStreams
        stream = Stream(viewer, all_users, call_id)
        self._streams.add(stream)
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        return self._read(stream)

    async def _read(self, stream: Stream) -> AsyncIterator[bytes]:
        try:
            await self._feed.wait_connected()  # from here on nothing is missed, and the page reads the state once more
            yield b"retry: 3000\n\n"
            while (message := await stream.messages.get()) is not None:
                yield message
        finally:
            self._streams.discard(stream)

    async def _follow(self) -> None:
        """Runs while a page is open."""
        loop = asyncio.get_running_loop()
        beat_at, logins_at = loop.time() + _HEARTBEAT_SECONDS, loop.time() + _LOGINS_SECONDS
        with self._feed.listening(self._note):
            while self._streams and not self._stopped:
                await asyncio.sleep(_GATHER_SECONDS + _GATHER_SECONDS_PER_STREAM * len(self._streams))
                changed, self._changed = self._changed, set()
                if changed:
                    await self._tell(changed)
                if loop.time() > logins_at:
                    logins_at = loop.time() + _LOGINS_SECONDS
                    await self._end_invalid()
                if loop.time() > beat_at:
                    beat_at = loop.time() + _HEARTBEAT_SECONDS
                    self._tell_all(_BEAT)

    def _note(self, changed: Collection[str] | None) -> None:
        if changed is None:
            self._tell_all(_RELOAD)
        else:
            self._changed.update(changed)

    async def _tell(self, changed: set[str]) -> None:
        for stream in self._streams:
            if stream.call_id in changed:
                stream.send(_CHANGED)
        lists = [stream for stream in self._streams if stream.call_id is None]
        if not lists:
            return
        if len(changed) > _MOST_AT_ONCE:
            for stream in lists:
                stream.send(_RELOAD)
            return
        with _database_away_tolerated():
            async with self._db.transaction() as session:
                calls = await call_lists.list_these(session, sorted(changed))
            for stream, message in _messages(lists, calls):
                stream.send(message)

    async def _end_invalid(self) -> None:
        """End the streams of logins that have ended, or may not see the same any more."""
        by_login: dict[UUID, list[Stream]] = {}
        for stream in self._streams:
            by_login.setdefault(stream.viewer.login.claims.session_id, []).append(stream)
        with _database_away_tolerated():
            async with self._db.transaction() as session:
                sights = await browser_logins.read_sights(session, list(by_login))
            for login, streams in by_login.items():
                for stream in streams:
                    if sights.get(login) != stream.viewer.login.sight:
                        stream.send(_RELOAD)
                        stream.send(None)

    def _tell_all(self, message: bytes) -> None:
        for stream in list(self._streams):
            stream.send(message)


def _messages(lists: Iterable[Stream], calls: list[ListedCall]) -> Iterable[tuple[Stream, bytes]]:
    """What each list is sent. Lists that look alike share what is made."""
    made: dict[tuple[object, ...], bytes | None] = {}
    now = datetime.now(UTC)
    for stream in lists:
        viewer = stream.viewer
        owner = None if stream.all_users else viewer.user_id
        alike = (owner, viewer.zone.key, viewer.login.shows_numbers)
        if alike not in made:
            rows = {
                call.id: render_row(call, viewer, now, all_users=stream.all_users)
                for call in calls
                if owner in (None, call.user_id)
            }
            made[alike] = f"event: rows\ndata: {json.dumps(rows)}\n\n".encode() if rows else None
        message = made[alike]
        if message is not None:
            yield stream, message


@contextmanager
def _database_away_tolerated() -> Iterator[None]:
    """Tolerate an unreachable database. Pages show its truth when they are loaded again."""
    try:
        yield
    except Exception as error:
        if not is_unreachable(error):
            raise
        log.warning("console_not_live", problem=repr(error))
