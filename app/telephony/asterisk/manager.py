"""Asterisk's manager interface (AMI). It is used for the one thing that ARI cannot do: record both sides apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.telephony.asterisk.options import AsteriskOptions
from app.telephony.base import ProviderError


class Ami:
    """One login."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def act(self, action: str, **fields: str) -> None:
        """Perform an action. Raises `ProviderError` with Asterisk's words if it refuses."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"Action": action, **fields}.items())
        self._writer.write(f"{lines}\r\n".encode())
        while "Response" not in (said := await self._message()):
            pass  # an event, which some actions send although none were requested
        if said["Response"] != "Success":
            raise ProviderError(f"AMI refuses {action}: {said.get('Message', 'no reason given')}")

    async def list(self, action: str, **fields: str) -> list[dict[str, str]]:
        """Perform an action, and return the events that answer it."""
        await self.act(action, **fields)
        events = []
        while (event := await self._message()).get("EventList") != "Complete":
            events.append(event)
        return events

    async def _message(self) -> dict[str, str]:
        block = (await self._reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
        return dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)


@asynccontextmanager
async def manager(options: AsteriskOptions) -> AsyncIterator[Ami]:
    """Log in for a moment. This is needed once per call and takes a few milliseconds. Raises `ProviderError`."""
    host, port = options.ami()
    username, password = options.ami_username or options.username, options.ami_password or options.password
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await reader.readline()  # the greeting
                session = Ami(reader, writer)
                await session.act("Login", Username=username, Secret=password.get_secret_value(), Events="off")
                yield session
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise ProviderError(f"AMI cannot be used at {host}:{port}: {error or type(error).__name__}") from error


async def start_recording(ami: Ami, channel: str, name: str) -> None:
    """Record what comes from the channel (left) and what goes to it (right), without a header, until the
    channel ends."""
    # ARI serves the folder beside MixMonitor's own.
    await ami.act("MixMonitor", Channel=channel, File=f"../recording/{name}.raw", Options="D")
