"""`ringback`: runs the server and its workers, and shows and changes its data."""

import os
import sys
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated

import typer

from app.cli import (
    api_keys,
    backups,
    calls,
    deliveries,
    dids,
    do_not_call,
    doctor,
    limits,
    models,
    outcomes,
    providers,
    users,
)
from app.cli.common import complain, console, failures_explained

app = typer.Typer(
    help="Ringback: the developer click-to-call API on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(users.app, name="users")
app.add_typer(calls.app, name="calls")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(dids.app, name="dids")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(limits.app, name="limits")
app.add_typer(do_not_call.app, name="do-not-call")
app.add_typer(models.app, name="models")
app.add_typer(outcomes.app, name="outcomes")
app.add_typer(providers.app, name="providers")
app.add_typer(providers.telephony, name="telephony", hidden=True)
app.command("call")(calls.place)
app.command()(backups.backup)
app.command()(backups.restore)
app.command()(backups.settle)
app.command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"ringback {version('ringback')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    """Options that come before the command."""


class WorkerKind(StrEnum):
    """`app` may not import `worker`, and the queues' names would import the database's modules."""

    CALLS = "calls"
    CALLBACKS = "callbacks"
    TRANSCRIPTS = "transcripts"


@app.command()
@failures_explained
def up(
    demo: Annotated[bool, typer.Option(help="Place one call and follow it to its transcript")] = True,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, the API and its workers."""
    from app.cli.up import run

    sys.exit(run(demo=demo))


@app.command()
@failures_explained
def serve() -> None:
    """Run the API."""
    from app.cli.serve import run

    run()


@app.command()
def worker(kind: WorkerKind) -> None:
    """Run one worker: `calls` dials and tracks, `callbacks` sends callbacks, `transcripts` recognizes speech."""
    os.execv(sys.executable, [sys.executable, "-m", "worker", kind.value])  # noqa: S606


@app.command()
@failures_explained
def migrate() -> None:
    """Bring the database's tables up to date. Waits for a PostgreSQL that is just starting."""
    from app.cli.migrate import migrate_to_head

    migrate_to_head()


def main() -> None:
    """The console script."""
    try:
        app()
    except KeyboardInterrupt:
        complain("Interrupted")
        sys.exit(130)
