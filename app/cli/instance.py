"""The instance of `ringback up` in a data folder: who runs it, its settings, its PostgreSQL while nobody does."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.common import fail
from app.options import SettingsError
from app.settings import INSTANCE_FILE, Settings, data_dir_from_environment, get_settings

if TYPE_CHECKING:
    from typing import TextIO


@contextmanager
def locked(data_dir: Path) -> Iterator[bool]:
    """Allow one `up` per folder. Yields whether the last one ended without cleaning up."""
    file = _open_lock(data_dir)
    with file:
        holder = _read_holder(file)
        if not _take(file):
            fail(
                f"Ringback already runs in {data_dir} (process {holder}). Use that one, stop it, or start another "
                "beside it: RINGBACK_DATA_DIR=./var2 RINGBACK_PORT=8001 make up"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield bool(holder)
        file.truncate(0)


def _open_lock(data_dir: Path) -> "TextIO":
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return (data_dir / "up.pid").open("a+")
    except OSError as error:
        fail(f"Cannot write to {data_dir}: {error.strerror}. Choose another folder: RINGBACK_DATA_DIR=… make up")


def _read_holder(file: "TextIO") -> str:
    file.seek(0)
    return file.read().strip()


def _take(file: "TextIO") -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def opened(*, to_restore: bool = False, restored_key: str | None = None) -> Iterator[Settings]:
    """The settings of the installation, whose PostgreSQL runs while the block runs.

    That of a data folder is started if `ringback up` does not run there. `to_restore`: `up` must not run, and the
    folder may be new; it gets this secret key, if any.
    """
    if os.environ.get("RINGBACK_DATABASE_URL"):
        yield get_settings()
        return
    data_dir = data_dir_from_environment().absolute()
    if not to_restore and not (data_dir / INSTANCE_FILE).exists():
        get_settings()  # says that there is nothing
    with _open_lock(data_dir) as file:
        if _take(file):
            yield from _start_postgres(data_dir, to_restore, restored_key)
        elif to_restore:
            fail(f"Ringback runs in {data_dir} (process {_read_holder(file)}). Stop it, or choose another data folder")
        else:
            yield get_settings()


def _start_postgres(data_dir: Path, to_restore: bool, restored_key: str | None) -> Iterator[Settings]:
    from app.embedded import Postgres, Valkey

    postgres = Postgres(data_dir)
    ran = postgres.is_running
    try:
        database_url = postgres.start()
        if to_restore:
            write(
                data_dir,
                database_url=database_url,
                redis_url=Valkey(data_dir).url,
                port=port(),
                secret_key=restored_key or os.environ.get("RINGBACK_SECRET_KEY"),
            )
        get_settings.cache_clear()
        yield get_settings()
    finally:
        if not ran:
            postgres.stop()


def port() -> int:
    """The port that `up` is to use."""
    given = os.environ.get("RINGBACK_PORT", "8000")
    if not given.isdigit() or not 1 <= int(given) <= 65535:
        raise SettingsError(f"RINGBACK_PORT: {given!r} is not a port. Use a number from 1 to 65535")
    return int(given)


def write(
    data_dir: Path, *, database_url: str, redis_url: str, port: int, secret_key: str | None = None
) -> dict[str, Any]:
    """Write the settings of this instance, for its processes and for `ringback` in another shell. Without a key, the
    folder keeps the one that it has, or gets a new one. Returns the settings."""
    file = data_dir / INSTANCE_FILE
    values = {
        "database_url": database_url,
        "redis_url": redis_url,
        "secret_key": secret_key or _read(file).get("secret_key") or secrets.token_hex(32),
        "embedded": True,
        "port": port,
        "data_dir": str(data_dir),
        "shutdown_grace_seconds": 4,
    }
    partial = file.with_suffix(".part")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(values, indent=1))
    partial.replace(file)
    return values


def _read(file: Path) -> dict[str, Any]:
    """What an earlier start wrote. A damaged file counts as missing: a new secret only ends the logins."""
    try:
        known = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
