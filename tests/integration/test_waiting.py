"""`Prefer: wait`: a client that waits learns of news at once, and costs nothing meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import redis
from fastapi import FastAPI, Request
from starlette.types import Message

from app import cancellation, waiting
from app.api import deps
from app.changes import ChangeFeed
from app.db import Database
from app.hints import Hints, arq_pool
from app.main import create_app
from app.models import User
from app.settings import Settings
from app.telephony.base import CallStatus
from app.waiting import Waiters
from app.web.resources import Resources
from tests.conftest import client_of
from tests.envelopes import data_of
from tests.integration.callback_calls import end, new_call, save_transcript
from worker.context import Context

URL = "http://127.0.0.1:1/"
DIALECTS = ("/api/developer", "/api")


def waits(headers: dict[str, str], preference: str = "wait=60") -> dict[str, str]:
    return {**headers, "Prefer": preference}


async def soon(asking: "asyncio.Task[httpx.Response]") -> httpx.Response:
    """The answer, which must come long before the time is over."""
    async with asyncio.timeout(30):
        return await asking


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def resources(app: FastAPI) -> Resources:
    found: Resources = app.state.resources
    return found


def are_waiting(resources: Resources, call_id: str, count: int = 1) -> Callable[[], bool]:
    """Whether so many requests have read the call, and wait for news."""

    def check() -> bool:
        events = resources.waiters._waiting.get(call_id, set())
        return sum(bool(event._waiters) for event in events) == count and resources.feed.is_connected

    return check


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_it_is_answered_when_the_transcript_is_there(
    client: httpx.AsyncClient, resources: Resources, headers: dict[str, str], user: User, context: Context, dialect: str
) -> None:
    call_id = await new_call(context, user, URL)
    await end(context, call_id, CallStatus.COMPLETED, recording=True)
    asking = asyncio.create_task(client.get(f"{dialect}/calls/{call_id}/transcript", headers=waits(headers)))
    await until(are_waiting(resources, call_id))
    await save_transcript(context, call_id)
    assert data_of(await soon(asking), "Transcript found")["transcript"]["summary"] == "They talked"
    assert call_id not in resources.waiters._waiting


async def test_each_dialect_is_answered_when_it_shows_something_new(
    client: httpx.AsyncClient, resources: Resources, headers: dict[str, str], user: User, context: Context
) -> None:
    """The older one shows nothing but the transcript, the newer one the end of the call, too."""
    call_id = await new_call(context, user, URL)
    older, newer = [
        asyncio.create_task(client.get(f"{dialect}/calls/{call_id}/transcript", headers=waits(headers)))
        for dialect in DIALECTS
    ]
    await until(are_waiting(resources, call_id, 2))
    await end(context, call_id, CallStatus.COMPLETED, recording=True)
    assert data_of(await soon(newer), "Transcript not available yet")["hangup_cause"] == "ANSWER"
    assert not older.done()
    await save_transcript(context, call_id)
    data_of(await soon(older), "Transcript found")


async def test_what_is_final_is_answered_at_once(
    client: httpx.AsyncClient, resources: Resources, headers: dict[str, str], user: User, context: Context
) -> None:
    call_id = await new_call(context, user, URL)
    await end(context, call_id, CallStatus.NO_ANSWER)
    for dialect in DIALECTS:
        path = f"{dialect}/calls/{call_id}/transcript"
        async with asyncio.timeout(20):
            data_of(await client.get(path, headers=waits(headers, "wait=60")), "Transcript processing failed")


async def test_a_canceled_call_is_news(
    client: httpx.AsyncClient, resources: Resources, headers: dict[str, str], user: User, context: Context
) -> None:
    call_id = await new_call(context, user, URL)
    asking = asyncio.create_task(client.get(f"/api/calls/{call_id}/transcript", headers=waits(headers)))
    await until(are_waiting(resources, call_id))
    async with context.db.transaction() as session:
        await cancellation.cancel(session, context.providers, call_id)
    data_of(await soon(asking), "Transcript processing failed")


async def test_without_news_it_is_answered_when_the_time_is_over(
    client: httpx.AsyncClient, headers: dict[str, str], user: User, context: Context
) -> None:
    call_id = await new_call(context, user, URL)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=waits(headers, "wait=1"))
    data_of(answer, "Transcript not available yet")
    assert loop.time() - began >= 0.99


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_errors_do_not_wait(
    client: httpx.AsyncClient, headers: dict[str, str], context: Context, db: Database, dialect: str
) -> None:
    path = f"{dialect}/calls/call_0000000000000000/transcript"
    async with asyncio.timeout(20):
        assert (await client.get(path, headers=waits(headers, "wait=60"))).status_code == 404
        assert (await client.get(path, headers={"Prefer": "wait=60"})).status_code == 401


@pytest.mark.parametrize(
    ("preference", "seconds"),
    [
        ("wait=30", 30),
        ("WAIT = 30", 30),
        ('wait="30"', 30),
        ("respond-async, wait=10", 10),
        ("wait=10;foo=bar", 10),
        ("wait=10, wait=20", 10),
        ("return=minimal", 0),
        ("await=10", 0),
        ("wait", 0),
        ("wait=", 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("wait=soon", 0),
        ("foo;wait=10", 0),
        ("wait=" + "9" * 40, 0),
        ("", 0),
    ],
)
def test_the_preference_is_read_as_rfc_7240_writes_it(preference: str, seconds: float) -> None:
    request = Request({"type": "http", "headers": [(b"prefer", preference.encode())]})
    assert deps._preferred_wait(request) == seconds


async def test_those_who_wait_hold_no_connection(
    migrated: Settings, headers: dict[str, str], user: User, context: Context
) -> None:
    """More of them than the process has connections, and others are served meanwhile."""
    app = create_app(migrated)
    async with app.router.lifespan_context(app), client_of(app) as client:
        resources: Resources = app.state.resources
        call_id = await new_call(context, user, URL)
        path = f"/api/developer/calls/{call_id}/transcript"
        asking = [asyncio.create_task(client.get(path, headers=waits(headers))) for _ in range(60)]
        await until(are_waiting(resources, call_id, 60))
        kept = resources.db._kept
        await until(lambda: kept._pool.pool.checkedout() == len(kept._idle))  # type: ignore[attr-defined]
        data_of(await client.get(path, headers=headers), "Transcript not available yet")
        resources.waiters.stop()  # as the process does when it is to stop
        for answer in await asyncio.gather(*asking):
            data_of(answer, "Transcript not available yet")


async def test_more_than_the_most_are_answered_at_once(
    client: httpx.AsyncClient, headers: dict[str, str], user: User, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING_OF_USER", 0)
    call_id = await new_call(context, user, URL)
    async with asyncio.timeout(20):
        answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=waits(headers, "wait=60"))
    data_of(answer, "Transcript not available yet")


async def test_a_client_that_leaves_waits_no_longer(
    resources: Resources, headers: dict[str, str], user: User, context: Context, app: FastAPI
) -> None:
    call_id = await new_call(context, user, URL)
    leaves = asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/developer/calls/{call_id}/transcript",
        "query_string": b"",
        "headers": [(key.lower().encode(), value.encode()) for key, value in waits(headers).items()],
    }
    asking = asyncio.create_task(app(scope, receive, send))
    await until(are_waiting(resources, call_id))
    leaves.set()
    await asking
    assert call_id not in resources.waiters._waiting
    assert sent[0]["status"] == 499


@pytest.fixture
async def away() -> AsyncIterator[ChangeFeed]:
    """A feed whose Valkey is away."""
    client = arq_pool("redis://127.0.0.1:1/0")
    feed = ChangeFeed(client)
    yield feed
    await feed.aclose()
    await client.aclose(close_connection_pool=True)


async def test_while_valkey_is_away_it_looks_for_itself(
    away: ChangeFeed, user: User, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_UNCONNECTED_SECONDS", 0.05)
    answers = iter(["pending", "pending", "ready"])

    async def read() -> str:
        return next(answers)

    found = await Waiters(away).wait_for_news(
        read, call_id="call_1", user_id="USR_1", shown=str, is_final="ready".__eq__, seconds=30
    )
    assert found == "ready"


async def test_the_feed_says_when_something_may_have_been_missed(migrated: Settings, hints: Hints) -> None:
    client = arq_pool(migrated.redis_url)
    feed = ChangeFeed(client)
    received: list[object] = []
    with feed.listening(received.append):
        await feed.wait_connected()
        with redis.Redis.from_url(migrated.redis_url) as other:
            other.client_kill_filter(_type="pubsub")
        await until(lambda: received.count(None) >= 2 and feed.is_connected)  # when it was lost, and when it is back
    await feed.aclose()
    await client.aclose(close_connection_pool=True)
