"""Downloads: redirects, signed URLs, compressed and broken responses."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from app.outbound import AddressRefused, NotThere, Outbound, OutboundError, UnusableUrl, client, host_of, parse_networks
from app.outbound.base import DownloadTooLarge, Gone, RedirectRefused, UndecodableBody
from app.outbound.urls import parse, redirected
from tests.integration.raw_server import RawServer, ReceivedRequest, response, serving

FILE = b"RIFF" + bytes(range(256)) * 700  # more than two chunks
SIGNED = "/a%2Fb/rec.wav?sig=ab%2Fcd%2Bef+gh%20ij%3D%3D&Name=a+b&empty=&x=%7Ey&;|'()*,[]{}\"<>^`\\"


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    opened = Outbound(parse_networks("127.0.0.0/8"))
    yield opened
    await opened.aclose()


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with serving(RawServer()) as running:
        yield running


async def fetch(outbound: Outbound, url: str, max_bytes: int = 10**9) -> bytes:
    async with outbound.download(url, max_bytes=max_bytes) as download:
        return b"".join([chunk async for chunk in download.chunks])


def moves(server: RawServer, places: dict[str, str], status: int = 302) -> None:
    """Paths in `places` redirect to their targets. Every other path is the file."""

    def answer(asked: ReceivedRequest) -> bytes:
        to = places.get(asked.target)
        return response(200, FILE) if to is None else response(status, b"moved", Location=to)

    server.answer = answer


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(outbound: Outbound, server: RawServer, status: int) -> None:
    moves(server, {"/link": server.url + "/file"}, status)
    async with outbound.download(server.url + "/link", max_bytes=10**9) as download:
        assert download.url == server.url + "/file"
        assert b"".join([chunk async for chunk in download.chunks]) == FILE


@pytest.mark.parametrize(("redirects", "followed"), [(5, True), (6, False)])
async def test_at_most_five_redirects_are_followed(
    outbound: Outbound, server: RawServer, redirects: int, followed: bool
) -> None:
    moves(server, {f"/{n}": f"/{n + 1}" for n in range(redirects)})
    if followed:
        assert await fetch(outbound, server.url + "/0") == FILE
    else:
        with pytest.raises(RedirectRefused, match="more than 5 times"):
            await fetch(outbound, server.url + "/0")
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/file?a=%2F", "/file?a=%2F"),
        ("file", "/folder/file"),
        ("../file", "/file"),
        ("?b=+", "/folder/link?b=+"),
        ("//127.0.0.1:{port}/file", "/file"),
        ("HTTP://127.0.0.1:{port}/file#part", "/file"),
        ("http://127.0.0.1:{port}?c", "/?c"),
        ("  /file with blanks ", "/file%20with%20blanks"),
        ("/für/../" + SIGNED[1:], "/f%C3%BCr/../" + SIGNED[1:]),
    ],
)
async def test_where_a_redirect_leads(outbound: Outbound, server: RawServer, location: str, asked: str) -> None:
    moves(server, {"/folder/link": location.replace("{port}", str(server.port))})
    assert await fetch(outbound, server.url + "/folder/link") == FILE
    assert server.targets == ["/folder/link", asked]


@pytest.mark.parametrize(
    ("place", "location", "why"),
    [
        ("https://a.example/", "http://a.example/", "from https to http"),
        ("https://a.example/", "HTTP://b.example/", "from https to http"),
        ("https://a.example/", "", "did not say where to"),
        ("https://a.example/", "ftp://a.example/", "neither http nor https"),
        ("https://a.example/", "file:///etc/passwd", "neither http nor https"),
        ("https://a.example/", "https:///path", "cannot be requested"),
        ("https://a.example/", "https://[::1/", "cannot be requested"),
        ("https://a.example/", "https://a.example:99999/", "cannot be requested"),
        ("https://a.example/", "https:\\\\a.example", "cannot be requested"),
    ],
)
def test_a_redirect_that_is_not_followed(place: str, location: str, why: str) -> None:
    with pytest.raises(RedirectRefused, match=why):
        redirected(parse(place), location)


def test_a_redirect_from_http_to_https_is_followed() -> None:
    assert str(redirected(parse("http://a.example/x"), "https://b.example/y%2F")) == "https://b.example/y%2F"


@pytest.mark.parametrize("inside", ["http://[::1]:{port}/", "http://10.0.0.1/", "http://169.254.169.254/latest"])
async def test_a_redirect_into_a_private_network_is_refused(outbound: Outbound, server: RawServer, inside: str) -> None:
    moves(server, {"/link": inside.replace("{port}", str(server.port))})
    with pytest.raises(AddressRefused, match="RINGBACK_OUTBOUND_NETWORKS"):
        await fetch(outbound, server.url + "/link")
    assert server.targets == ["/link"]


async def test_a_password_stays_with_the_server_it_was_given_for(outbound: Outbound, server: RawServer) -> None:
    async with serving(RawServer(answer=lambda _: response(200, FILE))) as other:
        own, elsewhere = f"http://127.0.0.1:{server.port}/2", f"http://127.0.0.1:{other.port}/3"
        moves(server, {"/1": own, "/2": elsewhere})
        assert await fetch(outbound, f"http://me:p%40ss@127.0.0.1:{server.port}/1") == FILE
        sent = [asked.headers.get("authorization") for asked in (*server.asked, *other.asked)]
        assert sent == ["Basic bWU6cEBzcw=="] * 2 + [None]


async def test_a_cookie_lives_as_long_as_its_download_and_goes_to_its_own_host(
    outbound: Outbound, server: RawServer
) -> None:
    """Some stores set one and redirect to the same URL."""

    def answer(asked: ReceivedRequest) -> bytes:
        if asked.headers.get("cookie") != "pass=7":
            return response(302, Set_Cookie="pass=7; Path=/", Location=asked.target)
        return response(302, Location=f"http://localhost:{server.port}/file")

    def file(asked: ReceivedRequest) -> bytes:
        return response(200, FILE) if asked.target == "/file" else answer(asked)

    server.answer = file
    for _ in range(2):
        assert await fetch(outbound, server.url + "/link") == FILE
    assert [asked.headers.get("cookie") for asked in server.asked] == [None, "pass=7", None] * 2


# URLs


async def test_an_address_reaches_its_server_as_it_was_given(outbound: Outbound, server: RawServer) -> None:
    server.answer = lambda _: response(200, FILE)
    await fetch(outbound, server.url + SIGNED)
    await outbound.post(server.url + SIGNED, b"{}", {}, timeout=30)
    assert server.targets == [SIGNED, SIGNED]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://a.example", "http://a.example/"),
        ("HTTPS://A.example:443/x?", "https://a.example/x?"),
        (" http://a.example/a b\u00fc\t#f ", "http://a.example/a%20b%C3%BC%09"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://a.example/%zz/%2e%2e/./..//", "http://a.example/%zz/%2e%2e/./..//"),
        ("http://me:%40@a.example:8080?x=1", "http://me:%40@a.example:8080/?x=1"),
        ("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080/"),
    ],
)
def test_what_is_made_of_an_address(given: str, asked: str) -> None:
    url = parse(given)
    assert f"{url.scheme}://" in asked
    assert str(url.raw_path_qs) == "/" + asked.split("/", 3)[3]
    assert host_of(given) == host_of(asked)


@pytest.mark.parametrize(
    "given",
    [
        *("", "a.example", "ftp://a.example/", "http:///x", "http://u:[@a/", "http://a:0/", "http://a.example/\ud800"),
        "http://user:secret@a\u2100.example/",
    ],
)
def test_an_address_that_nobody_can_request(given: str) -> None:
    with pytest.raises(UnusableUrl) as refused:
        parse(given)
    assert "secret" not in str(refused.value)


# Responses


def deflated(raw: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(raw) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("", FILE),
        ("identity", FILE),
        ("gzip", gzip.compress(FILE)),
        ("X-GZIP", gzip.compress(FILE)),
        ("gzip", gzip.compress(FILE[:1000]) + gzip.compress(FILE[1000:])),
        ("gzip", gzip.compress(FILE) + b"\0\0\0"),
        ("gzip", gzip.compress(FILE) + b"\x1f"),
        ("deflate", zlib.compress(FILE)),
        ("deflate", deflated(FILE)),
        ("deflate, gzip", gzip.compress(zlib.compress(FILE))),
        ("gzip", FILE),  # the header is wrong
        ("deflate", FILE),
        ("utf-8", FILE),
        ("aws-chunked", FILE),
    ],
)
async def test_a_content_encoding_is_undone(outbound: Outbound, server: RawServer, coding: str, sent: bytes) -> None:
    server.answer = lambda _: response(200, sent, Content_Encoding=coding)
    assert await fetch(outbound, server.url) == FILE


@pytest.mark.parametrize("sent", [b"", b"R"])
async def test_a_file_of_hardly_a_byte(outbound: Outbound, server: RawServer, sent: bytes) -> None:
    server.answer = lambda _: response(200, sent, Content_Encoding="gzip")
    assert await fetch(outbound, server.url) == sent


async def test_what_grows_when_it_is_unpacked_is_stopped(outbound: Outbound, server: RawServer) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    server.answer = lambda _: response(200, bomb, Content_Encoding="gzip")
    sizes = []
    with pytest.raises(DownloadTooLarge, match="larger than 1000000 bytes"):
        async with outbound.download(server.url, max_bytes=10**6) as download:
            async for chunk in download.chunks:
                sizes.append(len(chunk))
    assert max(sizes) <= 64 * 1024


async def test_what_grows_on_the_way_to_nothing_is_stopped(outbound: Outbound, server: RawServer) -> None:
    empty_blocks = zlib.compress(b"")[:2] + b"\0\0\0\xff\xff" * 400_000
    server.answer = lambda _: response(200, gzip.compress(empty_blocks), Content_Encoding="deflate, gzip")
    with pytest.raises(DownloadTooLarge, match="larger than 1000000 bytes"):
        await fetch(outbound, server.url, max_bytes=10**6)


@pytest.mark.parametrize("length", ["", str(len(FILE))])
async def test_what_is_too_large_is_stopped_also_before_it_came(
    outbound: Outbound, server: RawServer, length: str
) -> None:
    server.answer = lambda _: response(200, FILE, Content_Length=length)
    with pytest.raises(DownloadTooLarge, match="larger than 1000 bytes"):
        await fetch(outbound, server.url, max_bytes=1000)


CUT = {"Content_Length": str(len(FILE) + 1)}


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (response(200, FILE, **CUT), NotThere, "cut short"),
        (response(200, b"5\r\nhello\r\n", Transfer_Encoding="chunked", Content_Length=""), NotThere, "cut short"),
        (response(200, gzip.compress(FILE)[:-9], Content_Encoding="gzip"), NotThere, "cut short"),
        (response(200, gzip.compress(FILE)[:20] + bytes(99), Content_Encoding="gzip"), NotThere, "damaged|cut short"),
        (response(200, FILE, Content_Encoding="br"), UndecodableBody, "compressed by br"),
        (response(200, FILE, Content_Encoding="gzip, gzip, deflate"), UndecodableBody, "compressed 3 times"),
        (response(204), NotThere, "answered 204"),
        (response(206, FILE), NotThere, "answered 206"),
        (response(300), NotThere, "answered 300"),
        (response(304), NotThere, "answered 304"),
        (response(302), RedirectRefused, "did not say where to"),
        (response(401), NotThere, "answered 401"),
        (response(404), NotThere, "answered 404"),
        (response(410), Gone, "is gone"),
        (response(500), NotThere, "answered 500"),
        (b"SIP/2.0 200 OK\r\n\r\n", NotThere, "no HTTP"),
        (response(200, FILE, Content_Length="5"), NotThere, r"no HTTP: [^\n]+$"),  # and none of its bytes
        (b"", OutboundError, "disconnected"),
    ],
)
async def test_why_there_is_no_file(
    outbound: Outbound, server: RawServer, answer: bytes, error: type[OutboundError], why: str
) -> None:
    server.answer = lambda _: answer
    with pytest.raises(error, match=why) as raised:
        await fetch(outbound, server.url + "/?signature=secret")
    assert "secret" not in str(raised.value)
    assert raised.value.no_answer == (answer == b"")


@pytest.mark.parametrize(
    ("said", "seconds"), [("120", 120), ("soon", 0), ("", 0), ("-5", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
async def test_when_a_server_wants_to_be_asked_again(
    outbound: Outbound, server: RawServer, said: str, seconds: float
) -> None:
    server.answer = lambda _: response(429, Retry_After=said)
    with pytest.raises(NotThere) as raised:
        await fetch(outbound, server.url)
    assert raised.value.retry_after == seconds
    assert (await outbound.post(server.url, b"", {}, timeout=30)).retry_after == seconds


async def test_a_silent_place_behind_a_redirect_is_not_the_silence_of_who_redirects(
    outbound: Outbound, server: RawServer
) -> None:
    moves(server, {"/link": "http://127.0.0.1:1/file"})
    with pytest.raises(OutboundError, match="Cannot connect") as raised:
        await fetch(outbound, server.url + "/link")
    assert not raised.value.no_answer


async def test_a_server_that_says_nothing_or_never_ends(outbound: Outbound, monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/silent" not in await reader.readline():
            writer.write(response(200, Content_Length="999999"))
            with suppress(OSError):
                while True:
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.sleep(0.05)
        await reader.read()
        writer.close()

    monkeypatch.setattr(client, "_STALLED_SECONDS", 0.5)
    monkeypatch.setattr(client, "LONGEST_DOWNLOAD_SECONDS", 1.0)
    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as slow:
        for path in ("silent", "endless"):
            with pytest.raises(OutboundError, match="did not answer in time"):
                await fetch(outbound, f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}/{path}")
