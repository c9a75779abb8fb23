"""Checks the envelopes that both dialects answer with."""

from typing import Any

import httpx


def error_of(answer: httpx.Response, status: int) -> str:
    """The text of an error envelope."""
    body = answer.json()
    assert answer.status_code == status, body
    assert list(body) == ["status_code", "message", "error", "data"]
    assert body["status_code"] == status
    assert body["message"] is None
    assert body["data"] is None
    assert isinstance(body["error"], str)
    assert body["error"]
    return str(body["error"])


def data_of(answer: httpx.Response, message: str) -> dict[str, Any]:
    """The data of a success envelope."""
    body = answer.json()
    assert answer.status_code == 200, body
    assert list(body) == ["status_code", "message", "error", "data"]
    assert (body["status_code"], body["message"], body["error"]) == (200, message, None)
    data: dict[str, Any] = body["data"]
    return data
