"""The telephony providers as one process uses them: read from the database at most once a second, and their adapters.

An adapter is made when it is first used. When its options change, the next use gets a new one. The old one is closed
once nobody uses it any more. So a change needs no restart.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import providers
from app.db import Database
from app.errors import Unavailable
from app.options import SettingsError
from app.settings import Settings
from app.telephony.base import Capabilities, ProviderError, TelephonyProvider
from app.telephony_providers import ProviderConfig, list_configs

log = structlog.get_logger()

FRESH_SECONDS = 1.0
"""How old what this process knows of the providers may be."""


@dataclass(slots=True)
class _Opened:
    """An adapter, and how many use it now."""

    adapter: TelephonyProvider
    version: int
    users: int = 0
    outdated: bool = False


class ProviderDirectory:
    """The providers of one process."""

    def __init__(self, db: Database, settings: Settings, *, environment: TelephonyProvider | None = None) -> None:
        """`environment` is the adapter that environment variables configure. Absent: made from them, which raises
        `SettingsError`."""
        self._db = db
        self._settings = settings
        self._vault = providers.vault(settings)
        self._configs: dict[str, ProviderConfig] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        adapter = environment or providers.telephony_from_environment(settings)
        self._opened = {providers.ENVIRONMENT: _Opened(adapter, version=1)}

    async def configs(self, session: AsyncSession | None = None) -> dict[str, ProviderConfig]:
        """Every provider by its name, as of a second ago or later.

        Whoever has a `session` passes it on. Who holds one connection and waits for another could wait for ever.
        """
        if session is not None and monotonic() - self._read_at > FRESH_SECONDS:
            await self._read(session)
        if monotonic() - self._read_at > FRESH_SECONDS:
            async with self._reading:
                if monotonic() - self._read_at > FRESH_SECONDS:
                    async with self._db.statement() as connection:
                        await self._read(connection)
        return self._configs

    async def _read(self, connection: AsyncConnection | AsyncSession) -> None:
        self._configs = {config.name: config for config in await list_configs(connection)}
        self._read_at = monotonic()
        for name in [name for name in self._opened if name not in self._configs]:
            await self._retire(self._opened.pop(name))

    async def get_default(self, session: AsyncSession | None = None) -> ProviderConfig:
        """The provider of calls whose DID has none of its own."""
        for config in (await self.configs(session)).values():
            if config.is_default:
                return config
        raise Unavailable("No telephony provider is the default. `ringback providers default NAME` chooses one")

    async def get(self, name: str, session: AsyncSession | None = None) -> ProviderConfig:
        """Raises `ProviderError` if there is no such provider."""
        config = (await self.configs(session)).get(name)
        if config is None:
            raise ProviderError(f"There is no telephony provider {name} any more")
        return config

    async def get_capabilities(self, name: str, session: AsyncSession | None = None) -> Capabilities:
        """What the provider can do. Raises `ProviderError`."""
        return (await self._open(await self.get(name, session))).adapter.capabilities

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[TelephonyProvider]:
        """The provider's adapter, with its newest options. Raises `ProviderError` if it cannot be made."""
        opened = await self._open(await self.get(name))
        opened.users += 1
        try:
            yield opened.adapter
        finally:
            opened.users -= 1
            if opened.outdated and not opened.users:
                await opened.adapter.aclose()

    async def _open(self, config: ProviderConfig) -> _Opened:
        known = self._opened.get(config.name)
        if known is not None and known.version == config.version:
            return known
        try:
            adapter = providers.telephony_from_values(
                self._settings, config.name, config.kind or "", config.values(self._vault)
            )
        except SettingsError as error:
            raise ProviderError(f"{error}. `ringback providers check {config.name}` says more") from error
        opened = self._opened[config.name] = _Opened(adapter, config.version)
        if known is not None:
            log.info("provider_changed", provider=config.name)
            await self._retire(known)
        return opened

    async def _retire(self, opened: _Opened) -> None:
        opened.outdated = True
        if not opened.users:
            await opened.adapter.aclose()

    async def aclose(self) -> None:
        """Close every adapter."""
        for opened in self._opened.values():
            await opened.adapter.aclose()
