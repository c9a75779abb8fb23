"""A file for whoever helps an operator: what the installation is and does, without secrets, numbers, names or words.

It is built from what is known to be harmless, and leaves out everything else: options whose type cannot hold a secret,
counts, and of log lines the fields that this program fills itself.
"""

import asyncio
import json
import platform
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app import installation, providers
from app.db import Database
from app.doctor_machine import CheckLine
from app.options import Options, SettingsError
from app.settings import Settings, get_settings

_LOG_LINES = 2000
_LONGEST_LINE = 2000
_TAIL_BYTES = 2 * 1024 * 1024
_HIDDEN = "…"

_SHOWN_OPTIONS = frozenset(
    {"host", "home_country", "time_zone", "telephony_provider", "recognizer", "default_language", "log_format"}
)
"""Options of text that are words of a list. Of all others only whether they are set is shown."""

_OWN_CHECKS = frozenset({"database", "tables", "clock", "disk", "valkey", "workers", "recordings"})
"""Checks whose text is ours. Others repeat words of providers, receivers and variables."""

_SHOWN_FIELDS = frozenset(
    {
        *("event", "level", "timestamp", "worker", "queue", "kind", "status", "before", "attempt", "attempts", "ok"),
        *("seconds", "milliseconds", "call_id", "task_id", "tasks", "turns", "bytes", "pid", "running", "path"),
        *("method", "request_id", "trace_id", "part", "callback", "count", "code", "ms"),
    }
)
"""Fields of log lines that this program fills by itself."""

_IDS = frozenset({"timestamp", "worker", "call_id", "task_id", "request_id", "trace_id"})
_NAME = re.compile(r"[a-z_]{1,30}")
_WORD = re.compile(r"[A-Za-z0-9_.:/{}+-]{1,80}")
_EXCEPTION = re.compile(r"^\W*((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Lost|Timeout|Refused|Unavailable))\b")
_FRAME = re.compile(
    r'^\s*File ".*[/\\]((?:app|worker|migrations|site-packages|python3\.\d+)[/\\][\w./\\-]+\.py)", '
    r"line (\d+), in ([\w<>]+)"
)
_SERVER_LINE = re.compile(r"^(.{0,60}?\b(?:LOG|WARNING|ERROR|FATAL|PANIC):\s)(.*)$")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|\([^)]*\)|“[^”]*”")
_MASKED = (
    re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    re.compile(r"\b[a-z][a-z0-9+.-]*://\S+"),
    re.compile(r"(?<![\w/])/(?:[\w.-]+/)+[\w.-]*"),
    re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
    re.compile(r"\+?\d(?:[\s().-]?\d){5,}"),
    re.compile(r"\b(?=\w*\d)[\w+/=-]{16,}"),
)

_COUNTS = {
    "calls by status": "SELECT status, count(*) FROM calls GROUP BY 1 ORDER BY 1",
    "calls of the last day by status": "SELECT status, count(*) FROM calls WHERE created_at > now() - interval '1 day' "
    "GROUP BY 1 ORDER BY 1",
    "transcripts by status": "SELECT status, count(*) FROM transcripts GROUP BY 1 ORDER BY 1",
    "deliveries by status": "SELECT status, count(*) FROM deliveries GROUP BY 1 ORDER BY 1",
    "tasks by kind": "SELECT kind, count(*) FROM tasks GROUP BY 1 ORDER BY 1",
    "overdue tasks by kind": "SELECT kind, count(*) FROM tasks WHERE due_at < now() - interval '1 minute' "
    "GROUP BY 1 ORDER BY 1",
    "tasks that failed by kind": "SELECT kind, count(*) FROM tasks WHERE last_error IS NOT NULL GROUP BY 1 ORDER BY 1",
    "tables in bytes": "SELECT relname::text, pg_total_relation_size(relid) FROM pg_stat_user_tables ORDER BY 2 DESC",
    "rows, about": "SELECT relname::text, n_live_tup FROM pg_stat_user_tables ORDER BY 2 DESC",
    "connections by state": "SELECT coalesce(state, '?'), count(*) FROM pg_stat_activity GROUP BY 1 ORDER BY 1",
    "version": "SELECT current_setting('server_version'), 1",
    "revision": "SELECT version_num, 1 FROM alembic_version",
}


async def write(file: Path, lines: Sequence[CheckLine]) -> None:
    """Write the bundle. `lines`: what the doctor found. What cannot be had, because a server is away, is left out."""
    partial = file.with_name(f"{file.name}.part")
    partial.touch(mode=0o600)
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
            _add(bundle, "doctor.json", [_shown_check(line) for line in lines])
            _add(bundle, "versions.json", _versions())
            try:
                settings = get_settings()
            except SettingsError:
                pass  # the doctor's lines say so
            else:
                _add(bundle, "settings.json", _show_settings(settings))
                _add(bundle, "database.json", await _count(settings))
                for name, content in await asyncio.to_thread(_read_logs, settings.data_dir):
                    bundle.writestr(name, content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _add(bundle: zipfile.ZipFile, name: str, content: object) -> None:
    bundle.writestr(name, json.dumps(content, indent=1, default=str))


def _shown_check(line: CheckLine) -> dict[str, str]:
    if line.check in _OWN_CHECKS:
        return {**asdict(line), "seen": mask(line.seen), "fix": mask(line.fix)}
    return {"check": line.check, "level": line.level}


def _versions() -> dict[str, str]:
    packages = {each.metadata["Name"]: each.version for each in distributions()}
    return {"python": platform.python_version(), "system": platform.platform(), **dict(sorted(packages.items()))}


def _show_settings(settings: Settings) -> dict[str, object]:
    shown = {settings.variable(name): _shown_option(name, value) for name, value in settings}
    for group in providers.OPTIONS.values():
        try:
            options: Options = group.read()
        except SettingsError:
            continue  # an adapter that is not used
        given = options.model_fields_set
        shown |= {group.variable(name): _shown_option("", value) for name, value in options if name in given}
    return shown


def _shown_option(name: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return value if name in _SHOWN_OPTIONS else "(set)"


async def _count(settings: Settings) -> dict[str, object]:
    db = Database(settings.database_url, pool_size=1)
    counted: dict[str, object] = {}
    try:
        for name, query in _COUNTS.items():
            async with asyncio.timeout(10), db.statement() as connection:
                counted[name] = {str(key): value for key, value in await connection.execute(text(query))}
        async with asyncio.timeout(10), db.transaction() as session:
            counted["queues"] = [asdict(queue) for queue in await installation.list_queues(session)]
            states = await installation.list_providers(session)
            counted["providers"] = [{**asdict(state), "problem": state.problem and "(yes)"} for state in states]
    except Exception as failed:  # the doctor's lines say why
        counted["stopped by"] = type(failed).__name__
    finally:
        await db.dispose()
    return counted


# Logs


def _read_logs(data_dir: Path) -> list[tuple[str, str]]:
    found = []
    ours = sorted((data_dir / "logs").glob("*.log"))
    for path, shown in [*((path, show_line) for path in ours), *_server_logs(data_dir)]:
        lines = _tail(path)
        found.append((f"logs/{path.name}", "\n".join(filter(None, map(shown, lines)))))
    return found


def _server_logs(data_dir: Path) -> Iterable[tuple[Path, Callable[[str], str]]]:
    return [(data_dir / name, show_server_line) for name in ("postgres.log",) if (data_dir / name).exists()]


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]


def show_line(line: str) -> str:
    """What may be shown of a line of a process's log. Empty: nothing."""
    line = line[:_LONGEST_LINE] if not line.startswith("{") else line
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        shown = {name: _shown_field(name, value) for name, value in fields.items() if _NAME.fullmatch(name)}
        return json.dumps(shown, ensure_ascii=False)
    if frame := _FRAME.match(line):
        return f"  File {frame[1]}, line {frame[2]}, in {frame[3]}"
    if raised := _EXCEPTION.match(line):
        return f"{raised[1]}: {_HIDDEN}"
    return ""


def _shown_field(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if name in _SHOWN_FIELDS:
        return value if isinstance(value, int | float) else _shown_word(name, str(value))
    if name == "exception":
        return [shown for line in str(value).splitlines() if (shown := show_line(line))]
    raised = _EXCEPTION.match(str(value))
    return f"{raised[1]}: {_HIDDEN}" if raised else _HIDDEN


def _shown_word(name: str, value: str) -> str:
    """Our own words and ids. A library's log line is a sentence, and may quote anything."""
    is_id = name in _IDS
    return value if _WORD.fullmatch(value) and (is_id or mask(value) == value) else _HIDDEN


def show_server_line(line: str) -> str:
    """What may be shown of a line of PostgreSQL's log: its message, without the values in it."""
    found = _SERVER_LINE.match(line)
    return found[1] + mask(_QUOTED.sub(_HIDDEN, found[2])) if found else ""


def mask(words: str) -> str:
    """The text without e-mail addresses, URLs, paths, addresses, long numbers and tokens."""
    for pattern in _MASKED:
        words = pattern.sub(_HIDDEN, words)
    return words
