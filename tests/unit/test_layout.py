"""The architecture: who may import whom, who may write what, and what names promise. See docs/architecture.md."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import providers
from app.models import Call

ROOT = Path(__file__).parents[2]

ENTRY_POINTS = {
    "api": ["app/api"],
    "console": ["app/console"],
    "cli": ["app/cli"],
    "worker": ["worker"],
}
ASSEMBLY = ["app/main.py"]
"""Puts the API and the console together into one process. The command line starts it."""
WEB = ["app/web"]
"""What the API and the console share."""
DOMAIN = [
    f"app/{name}.py"
    for name in (
        "accounts",
        "audit",
        "backup_file",
        "backups",
        "browser_logins",
        "call_ids",
        "call_inserts",
        "call_lists",
        "call_lookups",
        "call_rules",
        "call_state",
        "call_views",
        "callbacks",
        "calling_hours",
        "calls",
        "cancellation",
        "changes",
        "db",
        "deliveries",
        "destinations",
        "dial_attempts",
        "dial_rules",
        "dids",
        "do_not_call",
        "doctor",
        "doctor_machine",
        "engine_models",
        "errors",
        "figures",
        "health",
        "hints",
        "history",
        "idempotency",
        "installation",
        "lanes",
        "metrics",
        "metrics_facts",
        "metrics_server",
        "models",
        "monitoring",
        "new_calls",
        "otel",
        "outcome_sets",
        "provider_directory",
        "providers",
        "recordings",
        "report_fields",
        "reports",
        "retention",
        "rule_models",
        "schema",
        "security",
        "settings",
        "settling",
        "speech_models",
        "support_bundle",
        "tasks",
        "telephony_providers",
        "throttle",
        "tracing",
        "transcripts",
        "usage",
        "vendor",
        "vocabulary",
        "waiting",
        "waveforms",
    )
]
LEAVES = [
    "app/telephony",
    "app/transcription",
    "app/storage",
    "app/outbound",
    "app/embedded.py",
    "app/logs.py",
    "app/parent_watch.py",
]
VALUES = ["app/numbers.py", "app/options.py"]
"""Leaves that every module may import, other leaves too."""

FRAMEWORKS = ("fastapi", "starlette", "sqlalchemy", "arq", "typer")

ADAPTERS = (
    "app.telephony.simulator",
    "app.telephony.asterisk",
    "app.telephony.twilio",
    "app.telephony.plivo",
    "app.transcription.whisper",
    "app.transcription.openai",
    "app.transcription.deepgram",
    "app.transcription.sarvam",
    "app.transcription.indic_conformer",
    "app.transcription.summary.LocalSummarizer",
    "app.storage.folder",
    "app.storage.s3",
    "app.storage.FolderStorage",
    "app.storage.S3Storage",
)


def sources(*places: str) -> Iterator[Path]:
    for place in places:
        path = ROOT / place
        yield from path.rglob("*.py") if path.is_dir() else [path]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of(name: str, places: list[str]) -> bool:
    """Whether the imported name is in one of these places."""
    modules = [place.removesuffix(".py").replace("/", ".") for place in places]
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def ours(path: Path) -> list[str]:
    return [name for name in imported(path) if name.partition(".")[0] in ("app", "worker", "migrations")]


# Tiers


def test_every_module_is_in_exactly_one_tier() -> None:
    tiers = [*ENTRY_POINTS.values(), ASSEMBLY, WEB, DOMAIN, LEAVES, VALUES]
    listed = [path for tier in tiers for path in sources(*tier)]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(sources("app", "worker")) - {ROOT / "app/__init__.py"}


@pytest.mark.parametrize("tier", ENTRY_POINTS)
def test_entry_points_do_not_import_each_other(tier: str) -> None:
    others = [place for name, places in ENTRY_POINTS.items() if name != tier for place in places]
    for path in sources(*ENTRY_POINTS[tier]):
        assert not [name for name in ours(path) if is_of(name, others)], path


@pytest.mark.parametrize("tier", [tier for tier in ENTRY_POINTS if tier != "cli"])
def test_only_the_command_line_starts_the_assembly(tier: str) -> None:
    for path in sources(*ENTRY_POINTS[tier]):
        assert not [name for name in ours(path) if is_of(name, ASSEMBLY)], path


def test_what_the_web_shares_imports_no_entry_point() -> None:
    for path in sources(*WEB):
        assert not [name for name in ours(path) if is_of(name, _above_the_domain())], path


def _above_the_domain() -> list[str]:
    return [*(place for places in ENTRY_POINTS.values() for place in places), *ASSEMBLY]


def test_the_domain_imports_no_entry_point_and_no_framework_of_one() -> None:
    for path in sources(*DOMAIN):
        assert not [name for name in ours(path) if is_of(name, [*_above_the_domain(), *WEB])], path
        assert not [name for name in imported(path) if name.startswith(("fastapi", "starlette", "typer", "rich"))], path


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_imports_only_itself_and_values(leaf: str) -> None:
    for path in sources(leaf):
        assert not [name for name in ours(path) if not is_of(name, [leaf, *VALUES])], path
        assert not [name for name in imported(path) if name.startswith(FRAMEWORKS)], path


def test_values_import_nothing_of_ours() -> None:
    for path in sources(*VALUES):
        assert not ours(path), path


def test_only_the_registry_knows_the_adapters() -> None:
    names = {*providers.TELEPHONY, *providers.RECOGNIZERS} - {"http"}  # also the scheme of an URL
    for path in sources("app", "worker"):
        if path.name == "providers.py" or any(is_of(ours_as(path), [leaf]) for leaf in LEAVES):
            continue
        assert not [name for name in imported(path) if name.startswith(ADAPTERS)], path
        literals = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        assert not literals & names, path


def ours_as(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_opentelemetry_is_imported_only_where_traces_are_turned_on() -> None:
    for path in sources("app", "worker"):
        if path.name != "otel.py":
            assert not [name for name in imported(path) if name.startswith("opentelemetry")], path
        at_the_top = [node for node in tree(path).body if isinstance(node, ast.ImportFrom)]
        assert "app.otel" not in [node.module for node in at_the_top], path


# Who writes what


def test_only_calls_py_writes_the_row_of_a_call() -> None:
    columns = {column.key for column in Call.__table__.columns}
    for path in sources("app", "worker"):
        for node in ast.walk(tree(path)):
            if path.name != "new_calls.py":
                assert not calls_function(node, "Call"), f"{path} creates a call"
            if path.name != "calls.py":
                assert not calls_function(node, "update", "Call"), f"{path} updates calls"
                assert not calls_function(node, "setattr", "call"), f"{path} sets a column of a call"
                written = [column for name, column in assigned(node) if name == "call" and column in columns]
                assert not written, f"{path} writes {written} of a call"


def test_there_is_one_way_to_open_a_transaction() -> None:
    for path in sources("app", "worker"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and path.name != "db.py":
                assert node.attr not in ("begin", "begin_nested", "commit", "rollback"), f"{path}:{node.lineno}"


def calls_function(node: ast.AST, function: str, first_argument: str | None = None) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function):
        return False
    first = node.args[0] if node.args else None
    return first_argument is None or (isinstance(first, ast.Name) and first.id == first_argument)


def assigned(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Variable and attribute, of each assignment to an attribute."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
        yield node.value.id, node.attr


# Names and sizes


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path in sources("app", "worker", "migrations", "bench", "lab", "tools", "tests"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_get_raises_find_returns_none_and_list_returns_many() -> None:
    routes = set(sources("app/api", "app/console/routes"))  # which all return a response
    for path in set(sources("app", "worker")) - routes:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
                continue
            verb, returns = node.name.lstrip("_").partition("_")[0], ast.unparse(node.returns)
            where = f"{path.name}: {node.name} returns {returns}"
            if verb == "get":
                assert not returns.endswith("| None"), where
            elif verb == "find":
                assert returns.endswith("| None"), where
            elif verb == "list":
                assert "list[" in returns or returns == "None", where  # a command prints its list


def test_no_file_holds_two_ideas() -> None:
    for path in sources("app", "worker"):
        assert len(path.read_text().splitlines()) <= 400, path
