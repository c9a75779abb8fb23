"""What routes share: the process's resources, the bearer token, and the request body."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app import accounts, call_ids
from app.api.envelope import explain
from app.errors import InvalidToken, NoSuchCall, ValidationFailed
from app.security import Claims
from app.web.bodies import read_raw_body
from app.web.resources import Resources, get_resources


def read_claims(request: Request) -> Claims:
    """What the access token says. Raises `InvalidToken`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidToken
    return get_resources(request).tokens.read_access(token.strip())


class _AccessToken(HTTPBearer):
    """Checks the access token before anything else in the request is read."""

    async def __call__(self, request: Request) -> Claims:  # type: ignore[override]
        return read_claims(request)


Bearer = Annotated[
    Claims,
    Depends(
        _AccessToken(
            scheme_name="bearer",
            bearerFormat="JWT",
            description="The `access_token` of a login",
            auto_error=False,
        )
    ),
]


async def _logged_in(request: Request, claims: Bearer) -> Claims:
    await accounts.check_login(get_resources(request).db, claims)
    return claims


LoggedIn = Annotated[Claims, Depends(_logged_in)]
"""A token whose login is checked in the database. For routes whose own statement does not check it."""


async def check_call_id(resources: Resources, claims: Claims, call_id: str) -> None:
    """Raises `NoSuchCall` for what cannot be a call's id. PostgreSQL could not even store some of it."""
    if not call_ids.is_call_id(call_id):
        await accounts.check_login(resources.db, claims)
        raise NoSuchCall


View = TypeVar("View")
_PREFERENCE = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def _preferred_wait(request: Request) -> float:
    """How many seconds the client would rather wait than read that nothing is new: `Prefer: wait=30` (RFC 7240).
    What cannot be read is ignored, as preferences are."""
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        if found := _PREFERENCE.fullmatch(preference.strip()):
            return float(found[1])
    return 0.0


async def read_news(
    request: Request,
    claims: Claims,
    call_id: str,
    read: Callable[[], Awaitable[View]],
    *,
    shown: Callable[[View], object],
    is_final: Callable[[View], bool],
) -> View:
    """What `read` returns. If the client prefers to wait, it is what `read` returns once it shows something else.

    Raises what `read` raises, and `ClientDisconnect`. `shown` and `is_final` are those of `app.waiting`.
    """
    seconds = _preferred_wait(request)
    if not seconds:
        return await read()
    began = perf_counter()
    try:
        async with _until_disconnected(request):
            return await get_resources(request).waiters.wait_for_news(
                read, call_id=call_id, user_id=claims.user_id, shown=shown, is_final=is_final, seconds=seconds
            )
    finally:
        request.scope[WAITED] = perf_counter() - began


WAITED = "ringback.waited"
"""In the scope: how many seconds a request waited because its client preferred that. It was not slow."""


@asynccontextmanager
async def _until_disconnected(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the client leaves. Then raises `ClientDisconnect`."""
    working = asyncio.current_task()
    assert working is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not has_left:
            raise
        working.uncancel()
        raise ClientDisconnect from None
    finally:
        watching.cancel()


ModelT = TypeVar("ModelT", bound=BaseModel)


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Read the JSON body. Raises `ValidationFailed` and `BodyTooLarge`.

    It is not a parameter of the route, because FastAPI would read and parse it before the token is checked, without a
    limit. FastAPI's errors would also show what was sent.
    """
    body = await read_raw_body(request)
    if not is_json(request):
        raise ValidationFailed("Send the body as JSON, with the header Content-Type: application/json")
    try:
        return model.model_validate_json(body, context=get_resources(request).numbers)
    except ValidationError as error:
        raise ValidationFailed(explain(error.errors(include_input=False, include_url=False))) from None


_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def find_idempotency_key(request: Request) -> str | None:
    """The key with which a client may send an order again. Raises `ValidationFailed`."""
    key = request.headers.get("Idempotency-Key", "").strip()
    if not key:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise ValidationFailed("Idempotency-Key: must be 1 to 255 ASCII characters without blanks")
    return key


def media_type(request: Request) -> str:
    """The body's media type, in lower case and without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def is_json(request: Request) -> bool:
    """Whether the body claims to be JSON."""
    said = media_type(request)
    return said == "application/json" or (said.startswith("application/") and said.endswith("+json"))


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The whole schema of a body. FastAPI does not know these models, so a reference would lead nowhere."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(parts[node["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in node.items()}

    whole: dict[str, Any] = inlined(schema)
    return whole


def order_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request of an order, for the OpenAPI document."""
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"},
        "description": "An order that is sent again with the same key within 24 hours is the same call",
    }
    return {**json_body(model), "parameters": [key]}


PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`wait=30`: answer when something has changed, or after 30 seconds; at most 60",
}
"""The header of a request that may wait, for the OpenAPI document."""

CALL_ID = {"name": "call_id", "in": "path", "required": True, "schema": {"type": "string", "title": "Call Id"}}
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}
"""For routes that read the path and the token themselves, for the OpenAPI document."""


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body, for the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(model)}}}}
