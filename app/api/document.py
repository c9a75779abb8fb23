"""FastAPI's OpenAPI document, without responses that no route sends."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

TAGS = [
    {"name": "developer", "description": "The dialect under `/api/developer`. An invalid request answers 400."},
    {
        "name": "current",
        "description": "The newest dialect, under `/api`, over the same accounts, calls and transcripts. An invalid "
        "request answers 422.",
    },
    {"name": "do-not-call", "description": "Customers whom your account does not call."},
    {"name": "recordings", "description": "Downloads, by the signed links in transcripts, lists and callbacks."},
    {"name": "health", "description": "For operators of the server."},
]

_FASTAPIS_OWN = "#/components/schemas/HTTPValidationError"


def document(app: FastAPI) -> dict[str, Any]:
    """The document. FastAPI adds a response to routes with parameters that no route of ours sends
    (`app.api.envelope`)."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=app.openapi_tags
        )
        for operations in schema["paths"].values():
            for operation in operations.values():
                if _FASTAPIS_OWN in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
