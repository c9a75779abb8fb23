"""`ringback backup`, `restore` and `settle`: save an installation, bring it back, and make what was restored safe."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from app.cli.common import audit_change, complain, console, fail, failures_explained, run_on

if TYPE_CHECKING:
    from app.backup_file import Manifest
    from app.db import Database
    from app.settings import Settings
    from app.settling import SettledWork
    from app.telephony_providers import ProviderConfig

_SHOWN = 5
_STDOUT = "-"


@failures_explained
def backup(
    file: Annotated[str, typer.Argument(help="Where to write it; -: standard output", show_default=False)],
    with_secret_key: Annotated[
        bool, typer.Option("--with-secret-key", help="Include RINGBACK_SECRET_KEY, which opens stored secrets")
    ] = False,
    recordings: Annotated[bool, typer.Option(help="Include the recordings")] = True,
) -> None:
    """Save the database and the recordings in one file. Ringback may run meanwhile."""
    from app import backups, providers, security
    from app.backup_file import BackupWriter
    from app.cli import instance

    with instance.opened() as settings, _target(file) as target:
        key = settings.secret_key.get_secret_value()
        storage = providers.storage(settings) if recordings else None

        async def work(db: "Database") -> "Manifest":
            with BackupWriter(target) as writer:
                return await backups.dump(
                    db,
                    storage,
                    writer,
                    version=version("ringback"),
                    secret_key=key,
                    secret_key_id=security.secret_key_id(key),
                    with_secret_key=with_secret_key,
                )

        manifest = run_on(settings, work)
    stored = manifest.recordings
    if stored is not None:
        _warn("is not there, so it was left out", "are not there, so they were left out", stored.missing)
        _warn("is not as it was stored", "are not as they were stored", stored.altered)
    kept = "without the recordings" if stored is None else f"{stored.count} recordings, {stored.bytes / 1e6:.1f} MB"
    done = f"Saved {manifest.tables['calls'].rows} calls, {kept}, as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    if file == _STDOUT:
        complain(done)
    else:
        console.print(f"{done}, in {file}: {Path(file).stat().st_size / 1e6:.1f} MB", soft_wrap=True)


@contextmanager
def _target(file: str) -> Iterator[BinaryIO]:
    """The file to write. It gets its name once it is whole, and nothing is left of it otherwise."""
    if file == _STDOUT:
        if sys.stdout.isatty():
            fail("A backup is no text for a terminal. Name a file, or send the output to another program")
        target = _Target(sys.stdout.buffer, "standard output")
        yield cast("BinaryIO", target)
        target.flush_out()
        return
    final = Path(file).absolute()
    partial = final.with_name(f"{final.name}.part")
    opened = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        opened.close()
        fail(f"Another backup is being written to {partial}. Wait for it, or name another file")
    try:
        opened.truncate(0)
        os.fchmod(opened.fileno(), 0o600)  # an earlier one may have been left by a crash
        target = _Target(opened, str(partial))
        yield cast("BinaryIO", target)
        target.sync()
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # after a failure, its buffer cannot be written either
            opened.close()


class _Target:
    """Explains why it cannot be written. What comes afterwards is dropped, because the archive writes until its end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._is_broken = False

    def write(self, data: bytes) -> int:
        if not self._is_broken:
            self._try(lambda: self._file.write(data))
        return len(data)

    def flush(self) -> None:
        """The archive asks for it often, and it is only needed at the end."""

    def flush_out(self) -> None:
        self._try(self._file.flush)

    def sync(self) -> None:
        """Write everything to the disk."""
        self.flush_out()
        self._try(lambda: os.fsync(self._file.fileno()))

    def _try(self, act: Callable[[], object]) -> None:
        from app.backup_file import BackupError

        try:
            act()
        except OSError as error:
            self._is_broken = True
            raise BackupError(
                f"Cannot write {self._name}: {error.strerror}. Nothing of it is left. Make room, or name another file"
            ) from error


@failures_explained
def restore(
    file: Annotated[Path, typer.Argument(help="A backup", exists=True, dir_okay=False, show_default=False)],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Dial and call back what was pending. Only if nothing ran since the backup"),
    ] = False,
    other_key: Annotated[
        bool, typer.Option("--other-key", help="Although RINGBACK_SECRET_KEY is not that of the backup")
    ] = False,
    recordings: Annotated[bool, typer.Option(help="Restore the recordings; otherwise they must be there")] = True,
    ignore_connections: Annotated[
        bool, typer.Option("--ignore-connections", help="What is connected to the database is not of Ringback")
    ] = False,
) -> None:
    """Restore a backup into an empty installation. Nobody is dialed or called back."""
    from app import backup_file, backups, providers
    from app.cli import instance
    from app.cli.migrate import migrate_to_head

    with console.status("Checking the file …"):
        manifest = backup_file.verify(file)
        saved_key = backups.find_secret_key(file)
    _refuse_newer(file, manifest)
    recordings = recordings and manifest.recordings is not None
    with instance.opened(to_restore=True, restored_key=saved_key) as settings:
        if not other_key:
            _refuse_other_key(settings, manifest)
        storage = providers.storage(settings)

        async def check(db: "Database") -> None:
            if recordings and not await storage.is_empty():
                raise backup_file.BackupError(
                    "There are recordings already. A backup is restored into an empty folder or bucket: choose another "
                    "RINGBACK_DATA_DIR or RINGBACK_S3_BUCKET, or delete them. If they are those of the backup: "
                    "--no-recordings"
                )
            await backups.refuse_if_in_use(db, ignore_connections=ignore_connections)

        async def load(db: "Database") -> list[str]:
            if recordings:
                with console.status("Restoring the recordings …"):
                    await backups.load_recordings(storage, file)
            with console.status("Restoring the tables …"):
                return await backups.load_tables(db, file, manifest)

        run_on(settings, check)
        _create_tables(settings, manifest.revision)
        left_out = run_on(settings, load)
        migrate_to_head()
        _finish(settings, manifest, resume=resume, removes=recordings)
    if left_out:
        complain(f"Left out, because they are not of Ringback: the tables {', '.join(left_out)}")


def _refuse_newer(file: Path, manifest: "Manifest") -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    from app.backup_file import BackupError
    from app.cli.migrate import alembic_config

    try:
        ScriptDirectory.from_config(alembic_config("")).get_revision(manifest.revision)
    except CommandError as error:
        raise BackupError(
            f"{file} was made by Ringback {manifest.ringback}, whose tables ({manifest.revision}) are newer than those "
            f"of this version, {version('ringback')}. Nothing was written. Install that version or a newer one"
        ) from error


def _refuse_other_key(settings: "Settings", manifest: "Manifest") -> None:
    from app import security
    from app.backup_file import BackupError

    if security.secret_key_id(settings.secret_key.get_secret_value()) != manifest.secret_key_id:
        raise BackupError(
            "RINGBACK_SECRET_KEY is not that of the backup. Set it to that one. If it is lost: with --other-key all "
            "logins end, links to recordings in sent callbacks stop working, and the secrets of telephony providers "
            "must be set again"
        )


def _create_tables(settings: "Settings", revision: str) -> None:
    """Empty tables, as they were when the backup was made."""
    from alembic import command

    from app.cli.migrate import alembic_config

    config = alembic_config(settings.database_url, settings.home_country)
    command.downgrade(config, "base")
    command.upgrade(config, revision)


def _finish(settings: "Settings", manifest: "Manifest", *, resume: bool, removes: bool) -> None:
    """Decide what becomes of pending work. Until this is committed, no worker can claim any."""
    from app import settling, telephony_providers
    from app.audit import AuditAction
    from app.settling import SettledWork

    async def work(db: "Database") -> tuple[int | SettledWork, list[str]]:
        async with db.transaction() as session:
            if removes and manifest.recordings is not None:
                await settling.remove_recordings(session, manifest.recordings.missing)
            done = await (settling.release(session) if resume else settling.settle(session, manifest.created_at))
            subject = f"of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
            await audit_change(session, AuditAction.RESTORED_BACKUP, subject=subject)
        async with db.statement() as connection:
            configs = await telephony_providers.list_configs(connection)
        return done, [fault for config in configs if (fault := _find_fault(config, settings)) is not None]

    done, faults = run_on(settings, work)
    calls = manifest.tables["calls"].rows
    console.print(f"Restored {calls} calls, as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC")
    if isinstance(done, SettledWork):
        _print_settled(done)
    else:
        console.print(f"{done} tasks go on as soon as workers run")
    for fault in faults:
        complain(fault)


def _find_fault(config: "ProviderConfig", settings: "Settings") -> str | None:
    """Why the provider's secrets cannot be read."""
    from app import providers
    from app.options import SettingsError

    try:
        config.values(providers.vault(settings))
    except SettingsError as error:
        return str(error)
    return None


@failures_explained
def settle(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Drop all pending work: end live calls, send no callbacks. For a database that other tools restored."""
    from app import settling
    from app.audit import AuditAction
    from app.cli import instance

    async def work(db: "Database") -> "SettledWork":
        async with db.transaction() as session:
            if await settling.has_workers(session):
                fail("Workers run on this database. Stop them, wait ten seconds, and try again")
            at = await settling.get_last_activity(session)
            await audit_change(session, AuditAction.SETTLED, subject=f"as of {at:%Y-%m-%d %H:%M:%S} UTC")
            return await settling.settle(session, at)

    with instance.opened() as settings:
        if not yes:
            typer.confirm("End all live calls of this database, and drop their callbacks?", abort=True)
        _print_settled(run_on(settings, work))


def _print_settled(done: "SettledWork") -> None:
    dropped = ", ".join(f"{count} {kind}" for kind, count in done.dropped.items())
    console.print(
        f"Live calls ended, neither dialed nor hung up: {done.calls}. Callbacks not sent: {done.deliveries}. Tasks "
        f"dropped: {dropped or 'none'}. Recordings still to be transcribed: {done.transcriptions}. All logins ended",
        soft_wrap=True,
    )


def _warn(one: str, many: str, keys: list[str]) -> None:
    if keys:
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        complain(f"{', '.join(keys[:_SHOWN])}{more} {one if len(keys) == 1 else many}")
