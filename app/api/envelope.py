"""The shape of every response, and the one place where errors become responses."""

import json
from typing import Any, Generic, TypeVar

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.db import is_unreachable
from app.errors import InvalidToken, NoSuchAgent, NoSuchRange, RingbackError, Unavailable, ValidationFailed
from app.telephony.base import ProviderError

log = structlog.get_logger()

DataT = TypeVar("DataT")


class Envelope(BaseModel, Generic[DataT]):
    """The response to a successful request."""

    status_code: int = Field(200, description="The HTTP status, repeated")
    message: str
    error: None = Field(None, description="Null on success")
    data: DataT


class ErrorEnvelope(BaseModel):
    """The response to a failed request."""

    status_code: int = Field(description="The HTTP status, repeated")
    message: None = Field(None, description="Null on failure")
    error: str = Field(description="What went wrong, for a person")
    data: None = None


class Detail(BaseModel):
    """The response to a missing or invalid access token."""

    detail: str


def success(message: str, data: BaseModel, *, exclude_unset: bool = False) -> Response:
    """A 200 response with this data. Responses are built here, because FastAPI would validate and copy them again."""
    shown = data.model_dump_json(exclude_unset=exclude_unset)
    body = f'{{"status_code":200,"message":{json.dumps(message)},"error":null,"data":{shown}}}'
    return Response(body, media_type="application/json")


def failure(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    """An error envelope."""
    content = {"status_code": status, "message": None, "error": error, "data": None}
    return Response(json.dumps(content), status, headers, media_type="application/json")


def _invalid_status(request: Request) -> int:
    """The status for an invalid request, which differs between the dialects."""
    path = request.url.path
    return 422 if path.startswith("/api/") and not path.startswith("/api/developer/") else 400


async def _ringback_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RingbackError)
    if isinstance(error, ValidationFailed):
        return failure(_invalid_status(request), error.message)
    if isinstance(error, NoSuchAgent):
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        content = {"detail": error.message, "request_id": request_id}
        return Response(json.dumps(content), error.status, media_type="application/json")
    if isinstance(error, InvalidToken):
        headers = {"WWW-Authenticate": "Bearer"}
        return Response(json.dumps({"detail": error.message}), 401, headers, media_type="application/json")
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, NoSuchRange):
        headers["Content-Range"] = f"bytes */{error.size}"
    return failure(error.status, error.message, headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return failure(error.status_code, error.detail, dict(error.headers or {}))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return failure(_invalid_status(request), explain(error.errors()))


async def _maybe_database_away(request: Request, error: Exception) -> Response:
    if not is_unreachable(error):
        raise error
    log.warning("database_unreachable", error=repr(error))
    return await _ringback_error(request, Unavailable(retry_after=2))


async def _provider_unusable(request: Request, error: Exception) -> Response:
    log.warning("provider_unusable", error=str(error))
    return await _ringback_error(request, Unavailable(str(error), retry_after=30))


async def _client_left(_: Request, error: Exception) -> Response:
    """The client has disconnected, so this response is only logged. nginx uses 499 for it."""
    return Response(status_code=499)


def explain(faults: Any) -> str:
    """Pydantic's faults as one line for a person: where and why, without what was sent."""
    lines = []
    for fault in faults:
        where = ".".join(str(part) for part in fault["loc"] if part not in ("body", "query", "path"))
        why = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            why = "this field is required"
        elif fault["type"] == "json_invalid":
            why = "the body is not valid JSON"
        lines.append(f"{where}: {why}" if where else why)
    return "; ".join(lines)


def install_error_handlers(app: FastAPI) -> None:
    """Handlers for every expected failure. `app.api.request_log` answers the unexpected ones."""
    app.add_exception_handler(RingbackError, _ringback_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    for kind in (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError):
        app.add_exception_handler(kind, _maybe_database_away)
    app.add_exception_handler(ProviderError, _provider_unusable)
    app.add_exception_handler(ClientDisconnect, _client_left)
