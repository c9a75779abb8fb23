"""PgBouncer in front of a PostgreSQL, with a pool for transactions."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from sqlalchemy.engine import make_url

from lab import packages
from lab.asterisk import free_port

_PATIENCE_SECONDS = 20.0


class PgBouncer:
    """Clients get a connection of PostgreSQL for one transaction at a time. It keeps no prepared statements, as before
    version 1.21."""

    def __init__(self, folder: Path, database_url: str, *, pool_size: int) -> None:
        """At most `pool_size` connections to PostgreSQL."""
        self._folder = folder
        self._server = make_url(database_url)
        self._pool_size = pool_size
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `RINGBACK_DATABASE_URL`."""
        user, database = self._server.username, self._server.database
        return f"postgresql+asyncpg://{user}@127.0.0.1:{self._port}/{database}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> str:
        return (self._folder / "pgbouncer.log").read_text()

    def start(self) -> None:
        """Raises `PackagesError` where the program cannot be had."""
        program = packages.command(packages.fetch(packages.PGBOUNCER), "sbin/pgbouncer")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "pgbouncer.ini"
        sockets = Path(str(self._server.query["host"]))
        config.write_text(
            f"[databases]\n* = host={sockets} user={self._server.username}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._pool_size}\nmax_client_conn = 500\n"
            "max_prepared_statements = 0\n"
        )
        # PgBouncer does not run as root. PostgreSQL's socket is its owner's.
        owner = ["-u", sockets.owner()] if os.geteuid() == 0 else []
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*program, *owner, str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PgBouncer does not start: {self.log[-500:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
