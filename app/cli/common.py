"""What commands share: the database, and failures in words that say what to do."""

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, ParamSpec, TypeVar

from rich.console import Console

from app.errors import RingbackError
from app.settings import Settings, SettingsError, data_dir_from_environment, get_settings

P = ParamSpec("P")
T = TypeVar("T")

console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """One message on standard error."""
    _errors.print(message, style="red", markup=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Tell the person what is wrong and what to do, and end."""
    complain(message)
    sys.exit(1)


def failures_explained(command: Callable[P, T]) -> Callable[P, T]:
    """Turns what a person can meet into a message; `RINGBACK_DEBUG=1` shows where it came from."""

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


def _explanation(error: Exception) -> str | None:
    from sqlalchemy.exc import ProgrammingError

    from app.db import is_unreachable
    from app.embedded import EmbeddedError
    from app.transcription.base import TranscriptionError

    if isinstance(error, SettingsError | RingbackError | TranscriptionError | EmbeddedError):
        return str(error)
    if isinstance(error, ProgrammingError) and "UndefinedTable" in str(error):
        return "The database has no tables yet. Run `ringback migrate`"
    if is_unreachable(error):
        return (
            f"PostgreSQL cannot be reached ({error}). Is Ringback running? `make up` starts it; its data folder is "
            f"{data_dir_from_environment().absolute()} (RINGBACK_DATA_DIR)"
        )
    return None


def with_database(work: Callable[..., Awaitable[T]], *arguments: object, **options: object) -> T:
    """Run `work(db, …)` with the running instance's database."""
    from app.db import Database

    async def run(settings: Settings) -> T:
        db = Database(settings.database_url, pool_size=2)
        try:
            return await work(db, *arguments, **options)
        finally:
            await db.dispose()

    return asyncio.run(run(get_settings()))
