"""The arrows of the architecture: who may import whom."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app import providers
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
LEAVES = [
    "app/telephony",
    "app/transcription",
    "app/storage",
    "app/outbound",
    "app/embedded.py",
    "app/parent_watch.py",
    "app/numbers.py",
]
# A leaf may know its own package and the value of a telephone number, and nothing else of ours.
FORBIDDEN_IN_LEAVES = ("fastapi", "sqlalchemy", "starlette", "arq", "app", "worker", "migrations")


def sources(place: str) -> Iterator[Path]:
    path = ROOT / place
    yield from path.rglob("*.py") if path.is_dir() else [path]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_nothing_of_ours(leaf: str) -> None:
    own = leaf.removesuffix(".py").replace("/", ".")
    for path in sources(leaf):
        for name in imported(path):
            if not name.startswith((own, "app.numbers.")):
                assert name.partition(".")[0] not in FORBIDDEN_IN_LEAVES, f"{path.name} imports {name}"


def test_app_never_imports_worker() -> None:
    for path in sources("app"):
        assert not [name for name in imported(path) if name.startswith("worker")], path


def test_only_the_door_and_its_keepers_touch_a_call() -> None:
    """Domain modules know nothing of HTTP; only `api` and the wiring do."""
    for path in (ROOT / "app").glob("*.py"):
        if path.name not in ("main.py",):
            assert not [name for name in imported(path) if name.startswith(("fastapi", "starlette"))], path


def test_no_file_became_two_ideas() -> None:
    for place in ("app", "worker"):
        for path in sources(place):
            assert len(path.read_text().splitlines()) <= 400, path


def test_nobody_asks_which_adapter_it_is() -> None:
    """An adapter's name stands in its own folder, in the registry and in the default of the setting."""
    for place in ("app", "worker"):
        for path in sources(place):
            if path.is_relative_to(ROOT / "app/telephony") or path.name in ("providers.py", "settings.py"):
                continue
            literals = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not literals & set(providers.TELEPHONY), path


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
    assert len(tagged["current"]) == 14
    for name in ("RecentCall", "CallTranscript", "CurrentClick2CallData", "AllocatedNumber", "CallLogData"):
        assert "examples" in json.dumps(openapi["components"]["schemas"][name]), name
