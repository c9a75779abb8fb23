"""The OpenAPI document is complete, and shows both dialects."""

import json
import re
from typing import Any

import pytest
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    settings = Settings(
        database_url="postgresql+asyncpg://nobody@127.0.0.1/nothing",
        redis_url="redis://127.0.0.1",
        secret_key=SecretStr("0123456789abcdef0123456789abcdef"),
    )
    return create_app(settings).openapi()


def test_every_reference_of_the_openapi_document_leads_somewhere(openapi: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(openapi)))
    known = {f"#/components/schemas/{name}" for name in openapi["components"]["schemas"]}
    assert references
    assert references <= known
    assert "HTTPValidationError" not in json.dumps(openapi), "no route answers with FastAPI's own"


def test_both_dialects_are_in_the_openapi_document_with_examples(openapi: dict[str, Any]) -> None:
    tagged: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            tagged.setdefault(operation["tags"][0], []).append(f"{method.upper()} {path}")
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert "examples" in json.dumps(content), path
    assert set(tagged) == {tag["name"] for tag in openapi["tags"]}
    assert len(tagged["developer"]) == 4
    assert len(tagged["current"]) == 15
    for name in ("RecentCall", "CallTranscript", "CurrentClick2CallData", "AllocatedNumber", "CallLogData"):
        assert "examples" in json.dumps(openapi["components"]["schemas"][name]), name
