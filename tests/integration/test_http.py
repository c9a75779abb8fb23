"""What every request meets: health checks, CORS, request ids, clients that leave."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.conftest import client_of

ORIGIN = "https://crm.example.com"


@pytest.fixture(scope="module")
async def app_with_cors(migrated: Settings) -> AsyncIterator[FastAPI]:
    """Also has a route that fails."""
    application = create_app(migrated.model_copy(update={"cors_origins": f"{ORIGIN}, https://b.example"}))

    @application.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret inside")

    async with application.router.lifespan_context(application):
        yield application


async def test_health_pages_answer_head(client: httpx.AsyncClient) -> None:
    alive = await client.head("/healthz")
    assert (alive.status_code, alive.content) == (200, b"")
    ready = await client.head("/readyz")
    assert ready.status_code == (await client.get("/readyz")).status_code
    assert ready.content == b""


async def test_no_origin_is_allowed_by_default(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


async def test_origins_that_are_set_may_use_the_api(app_with_cors: FastAPI) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    path = "/api/calls/click2call"
    async with client_of(app_with_cors) as client:
        preflight = await client.options(path, headers={"Origin": ORIGIN, **asking})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        stranger = await client.options(path, headers={"Origin": "https://evil.example", **asking})
        assert "access-control-allow-origin" not in stranger.headers
        for answer in (
            await client.post(path, headers={"Origin": ORIGIN}),
            await client.get("/broken", headers={"Origin": ORIGIN}),
        ):
            assert answer.headers["access-control-allow-origin"] == ORIGIN, "a page can read our errors"


@pytest.mark.parametrize("origins", ["crm.example.com", "https://crm.example.com/path", "null"])
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Settings(database_url="postgresql+asyncpg://x/x", redis_url="redis://x", cors_origins=origins)


async def test_an_unexpected_error_has_its_request_id_in_header_and_log(app_with_cors: FastAPI) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        async with client_of(app_with_cors) as client:
            answer = await client.get("/broken")
    assert answer.status_code == 500
    assert list(answer.json()) == ["status_code", "message", "error", "data"]
    assert "secret" not in answer.text
    (line,) = [line for line in logs if line["event"] == "unexpected_error"]
    assert line["request_id"] == answer.headers["x-request-id"]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(app: FastAPI) -> None:
    messages = iter([{"type": "http.request", "body": b'{"em', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/login",
        "raw_path": b"/api/login",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("10.0.0.1", 1),
    }
    with structlog.testing.capture_logs() as logs:
        await app(scope, receive, send)
    assert not [line for line in logs if line["log_level"] == "error"]
    assert [message.get("status") for message in sent if message["type"] == "http.response.start"] == [499]


async def test_a_byte_order_mark_before_a_login_is_no_error(client: httpx.AsyncClient) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"email": "a@example.com", "password": "x"}).encode()
    answer = await client.post("/api/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["error"] == "Incorrect email or password"
