"""The REST client of hosted providers, against servers that break off, redirect and are busy."""

import socket
from collections.abc import AsyncIterator
from email.utils import formatdate
from time import time

import pytest
from aiohttp import web

from app.telephony.base import Accepted, ProviderError, Rejected, Unknown
from app.telephony.rest import DownloadRefused, NoResponse, RestClient, UnknownWords
from tests.integration.two_leg_calls import running


class _Provider:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.elsewhere = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, request.headers.get("Authorization")))
        what = request.match_info["what"]
        if what == "lost":
            assert request.transport is not None
            request.transport.abort()
        if what == "short":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"RIFF")
            assert request.transport is not None
            request.transport.abort()
            return response
        if what == "away":
            raise web.HTTPFound(f"{self.elsewhere}/file")
        if what == "here":
            raise web.HTTPTemporaryRedirect("/file")
        if what == "round":
            raise web.HTTPFound("/round")
        if what == "later":
            return web.Response(status=429, headers={"Retry-After": formatdate(time() + 60, usegmt=True)})
        if what == "file":
            return web.Response(body=b"RIFF" * 1000, content_type="audio/wav")
        if what.isdecimal():
            return web.json_response({"message": f"said\n{what}"}, status=int(what))
        return web.json_response({"id": 7}, status=201)


@pytest.fixture
def server() -> _Provider:
    return _Provider()


@pytest.fixture
def other() -> _Provider:
    return _Provider()


@pytest.fixture
async def rest(server: _Provider, other: _Provider) -> AsyncIterator[RestClient]:
    def routes(provider: _Provider) -> list[web.RouteDef]:
        return [web.route("*", "/{what}", provider.answer)]

    async with running(routes(server)) as url, running(routes(other)) as server.elsewhere:
        client = RestClient("Acme", url, username="user", password="secret")
        yield client
        await client.aclose()


async def order(rest: RestClient, path: str) -> object:
    return await rest.order(path, json={}, reference=lambda response: response.find("id"))


async def test_what_an_order_comes_to(rest: RestClient, server: _Provider) -> None:
    assert await order(rest, "/call") == Accepted("7")
    assert await order(rest, "/404") == Rejected("Acme refused the call: 404 said 404")
    assert await order(rest, "/429") == Rejected("Acme is busy: 429 said 429", retry_after=5.0)
    later = await order(rest, "/later")
    assert isinstance(later, Rejected)
    assert later.retry_after is not None
    assert 50 < later.retry_after < 61
    for path in ("/500", "/408", "/200", "/lost"):
        assert isinstance(await order(rest, path), Unknown), path
    redirected = await order(rest, "/away")
    assert isinstance(redirected, Rejected)
    assert redirected.retry_after is None
    assert len(server.seen) == 9, "each was sent once"


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        client = RestClient("Acme", f"http://127.0.0.1:{taken.getsockname()[1]}", username="user")
        refused = await order(client, "/call")
        assert isinstance(refused, Rejected)
        assert refused.retry_after
        with pytest.raises(NoResponse) as raised:
            await client.ask("GET", "/call")
        assert not raised.value.maybe_received
        await client.aclose()


async def test_a_name_that_does_not_exist_was_not_called() -> None:
    client = RestClient("Acme", "https://acme.invalid", username="user")
    refused = await order(client, "/call")
    assert isinstance(refused, Rejected)
    assert refused.retry_after
    await client.aclose()


async def test_questions_raise_what_tells_nothing(rest: RestClient) -> None:
    for path in ("/401", "/403", "/429", "/500", "/away", "/lost"):
        with pytest.raises(ProviderError):
            await rest.ask("GET", path)
    assert (await rest.ask("GET", "/404")).status == 404


async def test_credentials_stay_at_home(rest: RestClient, server: _Provider, other: _Provider) -> None:
    for path in ("/away", "/here"):
        download = await rest.download(path)
        assert download.content_type == "audio/wav"
        assert len(b"".join([chunk async for chunk in download.chunks])) == 4000
    assert other.seen == [("/file", None)]
    assert all(credentials for _, credentials in server.seen)
    await rest.request("GET", f"{server.elsewhere}/direct")
    assert other.seen[-1] == ("/direct", None)


async def test_downloads_that_fail(rest: RestClient) -> None:
    with pytest.raises(DownloadRefused) as refused:
        await rest.download("/404")
    assert refused.value.status == 404
    with pytest.raises(ProviderError, match="too often"):
        await rest.download("/round")
    short = await rest.download("/short")
    with pytest.raises(ProviderError, match="all of a file"):
        assert [chunk async for chunk in short.chunks]


def test_a_word_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    words = UnknownWords("Acme")
    for word in ("a", "a", "b"):
        words.warn("status", word)
    assert len(caplog.records) == 2
