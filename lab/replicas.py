"""A primary and a replica of PostgreSQL, or of Valkey, and an address that can be moved from one to the other."""

import asyncio
import json
import signal
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import redis

from app.embedded import Postgres, Valkey

_CHUNK = 2**16


class MovingAddress:
    """Forwards a port of loopback to one server after another. Connections stay with the server they were made to."""

    def __init__(self) -> None:
        self._target: str | tuple[str, int] | None = None
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def start(self, target: str | tuple[str, int]) -> None:
        """`target` is the path of a socket, or a host and a port."""
        self._target = target
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def move(self, target: str | tuple[str, int] | None) -> None:
        """New connections go there. None: they are closed at once."""
        self._target = target

    async def stop(self) -> None:
        self._target = None  # for a connection that was accepted and is not served yet
        if self._server is not None:
            self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        await asyncio.sleep(0.05)  # the loop closes the sockets in its next rounds

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.current_task()
        assert relay is not None
        self._relays.add(relay)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._relays.discard(relay)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            there, back = await asyncio.open_unix_connection(self._target)
        elif self._target is not None:
            there, back = await asyncio.open_connection(*self._target)
        else:
            return
        directions = [asyncio.create_task(_relay(reader, back)), asyncio.create_task(_relay(there, writer))]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


async def _relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()


class ReplicaPostgres(Postgres):
    """A PostgreSQL that can be cut off, or be a replica. It listens on a socket in its folder."""

    @property
    def socket(self) -> str:
        return f"{self._socket_folder()}/.s.PGSQL.5432"

    def follow(self, primary: "ReplicaPostgres") -> None:
        """Copy the primary, and replicate what it writes from now on. The folder must be empty."""
        self._folder.mkdir(parents=True)
        self._folder.chmod(0o700)
        self._log.touch(mode=0o600)
        if self._user is not None:
            self._hand_over()
        source = f"--host={primary._socket_folder()}"
        self._run("pg_basebackup", source, "--username=ringback", "--write-recovery-conf", "--checkpoint=fast")
        (self._folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # of the primary's socket
        self.start()

    def promote(self) -> None:
        """Make it the primary."""
        self._run("pg_ctl", "promote", "--wait")

    def kill(self) -> None:
        """As if its machine lost power."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its connections, and answers nothing any more."""
        self._signal(signal.SIGSTOP)

    def _signal(self, signum: signal.Signals) -> None:
        try:
            postmaster = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
            processes = [postmaster, *postmaster.children()]
        except (psutil.NoSuchProcess, FileNotFoundError):
            return  # it is dead already
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)


class ReplicaValkey(Valkey):
    """A Valkey that can be a replica. All have the password of the first."""

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def follow(self, primary: "ReplicaValkey") -> None:
        """Start, and replicate the primary. From now on it has the primary's password."""
        self.start()
        password = str(urlsplit(primary.url).password)
        with redis.Redis.from_url(self.url) as client:
            client.config_set("masterauth", password)
            client.config_set("requirepass", password)
            client.replicaof(*primary.address)
        (self._folder / "address.json").write_text(json.dumps(self._address() | {"password": password}))

    def demote(self, primary: "ReplicaValkey") -> None:
        """Make it a replica of another. It keeps its connections, and refuses to write."""
        with redis.Redis.from_url(self.url) as client:
            client.config_set("masterauth", str(urlsplit(primary.url).password))
            client.replicaof(*primary.address)

    def promote(self) -> None:
        """Make it the primary."""
        with redis.Redis.from_url(self.url) as client:
            client.replicaof("NO", "ONE")
