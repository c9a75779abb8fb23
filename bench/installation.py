"""A whole installation for benchmarks and tests: its own PostgreSQL, Valkey, API and workers in one folder."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import redis
from alembic import command

from app.cli.migrate import alembic_config
from app.embedded import Postgres, Valkey

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes() -> list[tuple[int, int, float]]:
    """Process id, parent and CPU seconds (including those of ended children)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(stat.parent.name), int(fields[1]), sum(map(int, fields[11:15])) / _TICKS))
    return found


# A proxy of the environment cannot reach this machine's own address.
_OPENER = build_opener(ProxyHandler({}))


@dataclass
class Installation:
    """The caller names the processes. Their output goes to `data_dir`/NAME.log."""

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.postgres, self.valkey = Postgres(self.data_dir), Valkey(self.data_dir)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_servers(self, *, migrate: bool = True) -> None:
        self.database_url, self.redis_url = self.postgres.start(), self.valkey.start()
        if migrate:
            command.upgrade(alembic_config(self.database_url), "head")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
        self.environment = {
            **ours,
            "RINGBACK_DATABASE_URL": self.database_url,
            "RINGBACK_REDIS_URL": self.redis_url,
            "RINGBACK_SECRET_KEY": secrets.token_hex(32),
            "RINGBACK_DATA_DIR": str(self.data_dir),
            "RINGBACK_PORT": str(self.port),
            **self.settings,
        }

    def start(
        self, name: str, *module: str, checkout: Path | None = None, port: int | None = None
    ) -> "subprocess.Popen[bytes]":
        """Run `python -m …` under this name, after the previous process of the name has ended.

        `checkout` is the code of another version. `port` is for a second API.
        """
        with (self.data_dir / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=checkout,  # Python looks for modules there first
                env=self.environment | ({} if port is None else {"RINGBACK_PORT": str(port)}),
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def run(self, *arguments: str, checkout: Path | None = None) -> str:
        """The output of `ringback` with these arguments. Raises `RuntimeError` with it if the command fails."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout)
        return done.stdout

    def start_api(self) -> None:
        self.start("api", "app.cli", "serve")

    def start_worker(self, name: str, queue: str) -> None:
        self.start(name, "worker", queue)

    def wait_until_ready(self, path: str = "/readyz", seconds: float = 60.0, *, port: int | None = None) -> None:
        """`port` is that of a second API."""
        url = self.base_url + path if port is None else f"http://127.0.0.1:{port}{path}"
        deadline = time.monotonic() + seconds
        while True:
            try:
                with _OPENER.open(url, timeout=3):
                    return
            except (URLError, OSError) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} of the installation in {self.data_dir}: {error}") from error
                time.sleep(0.1)

    def start_valkey(self) -> None:
        """Start Valkey after it was killed. Returns when it has loaded its data."""
        self.valkey.start()
        with redis.Redis.from_url(self.redis_url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.BusyLoadingError:
                    time.sleep(0.05)

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        self.valkey.stop()
        self.postgres.stop(immediately=True)
