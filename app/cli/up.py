"""`ringback up`: the whole product on one machine, without any preparation.

It starts PostgreSQL and Valkey from their wheels, updates the tables, starts the API and its workers, creates a first
user, follows one demonstration call, and then serves until it is stopped. Production runs the same processes. Only
their supervisor differs.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from app import accounts
from app.cli import instance
from app.cli.common import complain, console, fail, program
from app.cli.follow import follow
from app.cli.migrate import migrate_to_head
from app.cli.processes import Processes
from app.db import Database
from app.embedded import EmbeddedError, Postgres, Valkey
from app.provider_directory import ProviderDirectory
from app.security import Tokens
from app.settings import Settings, data_dir_from_environment
from app.telephony.base import ProviderError

FIRST_USER = "demo@ringback.local"
_CUSTOMER, _AGENT = "919999999999", "918888888888"
_READY_SECONDS = 90.0


# A proxy of the environment cannot reach this machine's own address.
_OPENER = build_opener(ProxyHandler({}))


class _Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP: stop in order, at any point."""


def run(*, demo: bool) -> int:
    """Run until stopped. Returns the exit code."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    data_dir, port = data_dir_from_environment().absolute(), instance.port()
    with instance.locked(data_dir) as crashed:
        _check_port(port, patience=10.0 if crashed else 0.0)
        postgres, valkey, processes = Postgres(data_dir), Valkey(data_dir), Processes(data_dir / "logs")
        try:
            settings = _start_servers(data_dir, port, postgres, valkey)
            _start_processes(settings, processes)
            _greet(settings, demo)
            processes.watch()
        except _Stopped:
            return 0
        except EmbeddedError as error:
            complain(str(error))
            return 1
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            console.print("\nStopping …")
            processes.stop()
            valkey.stop()
            postgres.stop()
            console.print("Stopped. Everything is kept in", str(data_dir), markup=False, soft_wrap=True)
    return 0


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _check_port(port: int, *, patience: float) -> None:
    """After a crash, the old API may hold the port for a moment. Any other program holds it for good."""
    deadline = time.monotonic() + patience
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if time.monotonic() > deadline:
                    fail(f"Port {port} is not free: {error.strerror}. Choose another: RINGBACK_PORT={port + 1} make up")
            else:
                return
        time.sleep(0.2)


def _start_servers(data_dir: Path, port: int, postgres: Postgres, valkey: Valkey) -> Settings:
    with console.status("Starting PostgreSQL …"):
        database_url = postgres.start()
    if postgres.old_folder is not None:
        said = "PostgreSQL was upgraded to a newer major version. Delete the old data once all is well:"
        console.print(said, str(postgres.old_folder), markup=False, soft_wrap=True)
    with console.status("Starting Valkey …"):
        redis_url = valkey.start()
    values = instance.write(data_dir, database_url=database_url, redis_url=redis_url, port=port)
    # The settings of another server, in this shell, are not meant for this instance.
    os.environ.update({f"RINGBACK_{name.upper()}": str(value) for name, value in values.items()})
    with console.status("Bringing the tables up to date …"):
        migrate_to_head()
    return Settings()


def _start_processes(settings: Settings, processes: Processes) -> None:
    processes.start("api", "app.cli", "serve")
    for place, queue in enumerate(("calls", "callbacks", "transcripts"), start=1):
        processes.start(f"{queue} worker", "worker", queue, environment=_own_metrics_port(settings, place))
    url = f"http://127.0.0.1:{settings.port}/readyz"
    deadline = time.monotonic() + _READY_SECONDS
    with console.status("Waiting for the API and its workers …"):
        while True:
            died = processes.dead()
            if died:
                raise EmbeddedError(f"The {died.name} did not start:\n{died.last_words()}\nIts log is {died.log}")
            try:
                with _OPENER.open(url, timeout=2):
                    return
            except HTTPError as error:
                missing = json.loads(error.read()).get("missing", [])
            except (URLError, OSError):
                missing = ["the API does not answer"]
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Not ready after {_READY_SECONDS:.0f} s: {'; '.join(missing)}. See {settings.data_dir}/logs"
                )
            time.sleep(0.2)


def _own_metrics_port(settings: Settings, place: int) -> dict[str, str]:
    """Processes on one machine cannot share a port. The API has the one that is set, and the workers the next ones."""
    return {"RINGBACK_METRICS_PORT": str(settings.metrics_port + place)} if settings.metrics_port else {}


def _greet(settings: Settings, demo: bool) -> None:
    base_url = f"http://127.0.0.1:{settings.port}"
    password = asyncio.run(_first_user(settings))
    console.print(f"\nThe console is at {base_url}", style="bold", markup=False)
    if password is not None:
        console.print(f"  sign in as         {FIRST_USER}\n  its password       {password}", markup=False)
        console.print(f"  (shown only now; {program()} users set-password changes it)", soft_wrap=True)
    else:
        console.print(f"  sign in as         {FIRST_USER}, from an earlier start. A new password for it:")
        console.print(f"                     {program()} users set-password {FIRST_USER}", soft_wrap=True)
    real = asyncio.run(_find_real_provider(settings))
    if real is not None:
        console.print(f"\nCalls are real: the provider {real} dials. {program()} providers check", style="bold")
    elif demo:
        console.print("\nOne demonstration call, simulated, through the API:", style="bold")
        asyncio.run(_demonstrate(settings, base_url))
    console.print(f"\nRingback serves on {base_url}", style="bold", markup=False)
    console.print(f"  API documentation  {base_url}/docs", markup=False)
    if settings.metrics_port:
        ports = f"{settings.metrics_port} to {settings.metrics_port + 3}"
        console.print(
            f"  metrics            http://{settings.metrics_host}:{settings.metrics_port}/metrics (ports {ports})"
        )
    console.print(f"  data and logs      {settings.data_dir}", markup=False, soft_wrap=True)
    console.print("  Ctrl-C stops it all\n")


async def _find_real_provider(settings: Settings) -> str | None:
    """The name of the provider that dials by default. None: it only simulates."""
    db = Database(settings.database_url)
    directory = ProviderDirectory(db, settings)
    try:
        name = (await directory.get_default()).name
        try:
            return None if (await directory.get_capabilities(name)).simulated else name
        except ProviderError as error:
            complain(str(error))
            return name
    finally:
        await directory.aclose()
        await db.dispose()


async def _first_user(settings: Settings) -> str | None:
    """The password of the user that was created, or None if there was a user."""
    db = Database(settings.database_url)
    try:
        async with db.transaction() as session:
            if await accounts.list_users(session):
                return None
            password = secrets.token_urlsafe(12)
            user = await accounts.create_user(session, FIRST_USER, password)
            await accounts.set_operator(session, user, is_operator=True)
            return password
    finally:
        await db.dispose()


async def _demonstrate(settings: Settings, base_url: str) -> None:
    db = Database(settings.database_url)
    try:
        async with db.transaction() as session:
            user = (await accounts.find_user(session, FIRST_USER)) or (await accounts.list_users(session))[0]
            login = await accounts.open_login(session, user, seconds=600)
        tokens = Tokens(settings.secret_key.get_secret_value(), access_seconds=600, refresh_seconds=600)
        token = tokens.issue("access", login.user_id, login.session_id)
        order = json.dumps({"customer_number": _CUSTOMER, "agent_number": _AGENT}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = Request(f"{base_url}/api/developer/calls/click2call", order, headers)  # noqa: S310
        try:
            answer = await asyncio.to_thread(lambda: json.load(_OPENER.open(request, timeout=10)))
        except (HTTPError, URLError) as error:
            complain(f"The demonstration call was refused: {error}")
            return
        await follow(db, answer["data"]["call_id"], console)
    finally:
        await db.dispose()


if __name__ == "__main__":
    sys.exit(run(demo=True))
