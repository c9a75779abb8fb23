"""Any request may arrive: by the OpenAPI document, and as raw bytes. Every response is documented."""

import hmac
import json
import os
import random
import socket
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Instance, place

# The number of random examples per operation. All examples and boundary cases of the document are sent, too, and find
# most faults. `make fuzz` sends many more.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
DOCUMENTED = {200, 400, 401, 403, 404, 405, 413, 422, 429, 503}


def test_schemathesis_finds_nothing(api: httpx.Client, instance: Instance) -> None:
    """Test the live API by its own OpenAPI document."""
    command = [
        *[sys.executable, "-m", "schemathesis.cli", "run", f"{instance.base_url}/openapi.json"],
        *["--header", f"Authorization: {api.headers['Authorization']}"],
        # `readyz` may really not be ready. `unsupported_method` wants an Allow header for every path that it invents.
        *[
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ],
        *["--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing", "--workers", "1", "--seed", "1"],
        *["--exclude-path", "/readyz"],
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600 + 60 * EXAMPLES)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def exchange(instance: Instance, request: bytes) -> bytes:
    """Send these bytes, and read until the server closes. If the server waits for the rest of a request, the end of the
    connection shows that none comes."""
    address = urlsplit(instance.base_url)
    assert address.hostname
    assert address.port
    answer = b""
    with socket.create_connection((address.hostname, address.port), timeout=3) as connection:
        connection.sendall(request)
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(60)
            assert connection.recv(65536) == b"", "it waits, then closes: it never hangs"
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def request(path: bytes, *, method: bytes = b"POST", headers: bytes = b"", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s\r\n%s" % (method, path, headers, length, body)


LOGIN, CREATE = b"/api/developer/login", b"/api/developer/calls/click2call"
LOG = b"/api/calls/call-log"
JSON = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        request(LOGIN, headers=JSON, body=b"[" * 60_000),
        request(LOGIN, headers=JSON, body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        request(LOGIN, headers=JSON, body=b'{"email": "\\ud800@x", "password": "\\u0000"}'),
        request(LOGIN, headers=JSON, body=b'{"email": "a@x", "password": "\\ud83d"}'),
        request(LOGIN, headers=JSON, body=b'{"email": NaN, "password": Infinity}'),
        request(LOGIN, headers=JSON, body=b'{"email": "a@x", "password": "' + b"x" * 60_000 + b'"}'),
        request(LOGIN, headers=JSON, body=b"\xff\xfe\x00"),
        request(LOGIN, headers=JSON, body=b"1" * 5000),
        request(LOGIN, headers=b"Content-Type: \xff\xfe\r\n", body=b"{}"),
        request(CREATE, headers=b"Authorization: Bearer \xff\x00\x80\r\n" + JSON, body=b"{}"),
        request(CREATE, headers=b"Authorization: Bearer " + b"a." * 10_000 + b"\r\n" + JSON, body=b"{}"),
        request(CREATE, headers=b"Authorization: \r\n" * 50 + JSON, body=b"{}"),
        request(LOG, headers=b"Authorization: Basic \xff\r\n" + JSON, body=b"{}"),
        request(LOG, headers=b"Authorization: Basic /w==\r\n" + JSON, body=b"{}"),
        request(LOG, headers=b"X-API-Key: \xff\xfe\x80\r\n" + JSON, body=b"{}"),
        request(LOG, headers=b"X-Greeter-Username: \xff\r\nX-Greeter-Password: \xed\xa0\x80\r\n", body=b"{}"),
        request(LOG + b"?auth_user=%ff%00&auth_pass=%ed%a0%80", headers=JSON, body=b"{}"),
        request(b"/api/developer/calls/%00%ff%fe/transcript", method=b"GET"),
        request(b"/api/developer/calls/\xff\xfe/transcript", method=b"GET"),
        request(b"/api/developer/calls/" + b"a" * 20_000 + b"/transcript", method=b"GET"),
        request(b"/api/developer/refresh_token?refresh_token=%00%ff&refresh_token=" + b"a" * 20_000),
        request(b"/api/developer/refresh_token?" + b"&" * 10_000),
        request(b"/%2e%2e/%2e%2e/etc/passwd", method=b"GET"),
        request(b"*", method=b"OPTIONS"),
        request(LOGIN, method=b"BREW"),
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100,
    ],
)
def test_bytes_that_no_client_should_send(instance: Instance, sent: bytes) -> None:
    answer = exchange(instance, sent)
    assert status_of(answer) in DOCUMENTED, answer[:500]


def test_random_bytes_in_random_places(instance: Instance, api: httpx.Client) -> None:
    chosen = random.Random(20260305)
    token = api.headers["Authorization"].encode()
    good = request(
        CREATE,
        headers=b"Authorization: " + token + b"\r\n" + JSON,
        body=b'{"customer_number": "15005550001", "agent_number": "918888888888"}',
    )
    for _ in range(EXAMPLES * 5):
        sent = bytearray(good)
        for _ in range(chosen.randint(1, 4)):
            sent[chosen.randrange(len(sent))] = chosen.randrange(256)
        answer = exchange(instance, bytes(sent))
        assert not answer or status_of(answer) in DOCUMENTED, (bytes(sent), answer[:500])


ROUTES = (
    (b"POST", LOGIN),
    (b"POST", CREATE),
    (b"POST", LOG),
    (b"GET", b"/api/calls/recent"),
    (b"GET", b"/api/calls/call_0000000000000000/transcript"),
    (b"POST", b"/api/calls/call_0000000000000000/transcript/retry"),
    (b"POST", b"/api/refresh_token"),
    (b"GET", b"/api/recordings/call_0000000000000000"),
    (b"GET", b"/api/mobile-numbers/channel-allocation/utilization"),
    (b"PATCH", b"/api/mobile-numbers/channel-allocation"),
    (b"GET", b"/api/calls/inbound-callback-url"),
    (b"GET", b"/healthz"),
)
HEADERS = (
    *(b"Authorization", b"X-API-Key", b"X-Greeter-Username", b"X-Greeter-Password", b"Content-Type", b"Range"),
    *(b"If-Range", b"Accept", b"Origin", b"Cookie", b"X-Forwarded-For", b"Expect", b"Content-Encoding", b"X-\xff"),
)
BEGINNINGS = (b"", b"Bearer ", b"Basic ", b"application/json; charset=", b"multipart/form-data; boundary=", b"bytes=")
QUERIES = (b"auth_user", b"auth_pass", b"did", b"customer_number", b"date_from", b"page", b"status", b"refresh_token")
PIECES = (
    b"%00",
    b"%ff",
    b"%ed%a0%80",
    b"+",
    b"%2B",
    b"0",
    b"\xff",
    b"\x80",
    b"a",
    b"-",
    b"9" * 30,
    b"=",
    b",",
    b"\xc3\xa9",
)


def test_random_headers_queries_and_paths(instance: Instance, api: httpx.Client) -> None:
    chosen = random.Random(13)

    def piece(most: int) -> bytes:
        return b"".join(chosen.choices(PIECES, k=chosen.randint(0, most)))

    for _ in range(EXAMPLES * 15):
        method, path = chosen.choice(ROUTES)
        if chosen.random() < 0.3:
            path = path.replace(b"call_0000000000000000", piece(4)).replace(b"calls", piece(2) or b"calls")
        path += b"?" + b"&".join(chosen.choice(QUERIES) + b"=" + piece(3) for _ in range(chosen.randint(0, 3)))
        names = chosen.sample(HEADERS, k=chosen.randint(0, 3))
        sent = b"".join(b"%s: %s%s\r\n" % (name, chosen.choice(BEGINNINGS), piece(4)) for name in names)
        if b"Authorization" not in names and chosen.random() < 0.5:
            sent += b"Authorization: " + api.headers["Authorization"].encode() + b"\r\n"
        whole = request(path, method=method, headers=sent, body=b"{}" if method != b"GET" else b"")
        answer = exchange(instance, whole)
        assert not answer or status_of(answer) in DOCUMENTED | {206, 416}, (whole, answer[:500])


@pytest.mark.parametrize(
    "sub", ["USR_\0000000", "USR_\ud8000000", "", "x" * 300, 7, None, ["USR_00000000"], "usr_0000000a"]
)
def test_signed_tokens_with_claims_that_nobody_issues(instance: Instance, sub: Any) -> None:
    secret = json.loads((instance.data_dir / "instance.json").read_text())["secret_key"]
    now = int(time.time())
    for kind, more in (("access", {}), ("refresh", {}), ("access", {"sid": "\ud800"}), ("access", {"exp": 2**70})):
        claims = {
            **{"iss": "ringback", "aud": "ringback", "kind": kind, "sub": sub, "sid": str(uuid4()), "iat": now},
            **{"exp": now + 60, **more},
        }
        parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, claims)]
        signature = hmac.digest(secret.encode(), b".".join(parts), "sha256")
        token = b".".join([*parts, urlsafe_b64encode(signature).rstrip(b"=")])
        for method, path in ROUTES:
            bearer = b"Authorization: Bearer " + token + b"\r\n"
            answer = exchange(instance, request(path, method=method, headers=bearer + JSON, body=b"{}"))
            assert status_of(answer) in DOCUMENTED, (claims, path, answer[:300])
        answer = exchange(instance, request(b"/api/refresh_token?refresh_token=" + token))
        assert status_of(answer) in (400, 401)


def test_a_body_of_20_megabytes_is_read_before_it_is_refused(instance: Instance) -> None:
    answer = httpx.post(
        f"{instance.base_url}/api/developer/login",
        content=b" " * 20_000_000,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 413
    assert list(answer.json()) == ["status_code", "message", "error", "data"]


def test_it_still_works_after_all_that(instance: Instance, api: httpx.Client) -> None:
    assert place(api, "15005550001")
    logs = "".join(path.read_text() for path in (instance.data_dir / "logs").glob("api.log"))
    errors = [line for line in logs.splitlines() if '"level": "error"' in line or "Traceback" in line]
    assert not errors, json.dumps(errors[:3])
