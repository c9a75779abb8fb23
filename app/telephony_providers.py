"""The telephony providers of this installation, as rows. `ringback providers` changes them.

One row is always there: `environment`, which environment variables configure. A call names its provider when it is
created, and keeps it. `app.provider_directory` has the rows as a process uses them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.engine_models import ProviderRow, Task, TaskKind
from app.errors import AlreadyExists, Conflict, NoSuchProvider, ValidationFailed
from app.models import Call, Did
from app.options import SettingsError
from app.security import Vault

_RESERVED = "default"  # `ringback dids set NUMBER --provider default`
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_KINDS_AT_A_PROVIDER = (TaskKind.DIAL, TaskKind.CONNECT, TaskKind.TRACK, TaskKind.HANGUP, TaskKind.FETCH_RECORDING)


@dataclass(frozen=True, slots=True)
class Pace:
    """At most `calls` calls are dialed in `seconds`, evenly spaced."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.calls} per {'minute' if self.seconds == 60 else 'second'}"


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One provider. `options` has no secrets."""

    name: str
    kind: str | None
    """The adapter. None: environment variables name it."""
    options: Mapping[str, Any]
    secrets: str | None
    """Encrypted."""
    is_default: bool
    is_drained: bool
    calls_at_once: int | None
    pace: Pace | None
    version: int

    @property
    def is_gated(self) -> bool:
        """Whether its calls may have to wait for others."""
        return self.calls_at_once is not None or self.pace is not None

    def values(self, vault: Vault) -> dict[str, Any]:
        """All options, with the secret ones. Raises `SettingsError`."""
        try:
            return {**self.options, **(json.loads(vault.decrypt(self.secrets)) if self.secrets else {})}
        except ValueError as error:
            raise SettingsError(
                f"The secrets of the provider {self.name} cannot be read: {error}. Set them again: "
                f"ringback providers set {self.name} -o NAME=VALUE"
            ) from error


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider is to bear. None leaves it as it is, 0 removes the limit."""

    calls_at_once: int | None = None
    pace: Pace | None = None


async def list_configs(connection: AsyncConnection | AsyncSession) -> list[ProviderConfig]:
    """Every provider, by name."""
    rows = await connection.execute(select(ProviderRow.__table__).order_by(ProviderRow.name))
    return [_config(row) for row in rows]


async def get_config(session: AsyncSession, name: str) -> ProviderConfig:
    """The provider, locked until the transaction ends. Raises `NoSuchProvider`."""
    return _config(await _locked(session, name))


def _config(row: Any) -> ProviderConfig:
    return ProviderConfig(
        row.name,
        row.kind,
        row.options,
        row.secrets,
        row.is_default,
        row.drained_at is not None,
        row.calls_at_once,
        None if row.pace_calls is None else Pace(row.pace_calls, row.pace_seconds),
        row.version,
    )


async def add(
    session: AsyncSession, name: str, kind: str, *, options: Mapping[str, Any], secrets: Mapping[str, str], vault: Vault
) -> None:
    """Add a provider. Its options are valid. Raises `ValidationFailed`, `AlreadyExists`."""
    if not _NAME.fullmatch(name) or name == _RESERVED:
        raise ValidationFailed("A provider's name is up to 31 letters, digits and hyphens, all lower case, as my-trunk")
    if await session.get(ProviderRow, name) is not None:
        raise AlreadyExists(f"There is a provider {name} already. `ringback providers set {name}` changes it")
    sealed = _sealed(secrets, vault)
    session.add(ProviderRow(name=name, kind=kind, options=dict(options), secrets=sealed))
    await session.flush()


async def change(
    session: AsyncSession, name: str, *, options: Mapping[str, Any], secrets: Mapping[str, str], vault: Vault
) -> None:
    """Replace the options of a provider. Raises `NoSuchProvider`, `Conflict`."""
    row = await _locked(session, name)
    if row.kind is None:
        raise Conflict("Environment variables configure this provider. Change them, and restart Ringback")
    row.options, row.secrets, row.version = dict(options), _sealed(secrets, vault), row.version + 1


async def limit(session: AsyncSession, name: str, limits: Limits) -> None:
    """Set how many calls the provider is to bear. Raises `NoSuchProvider`."""
    row = await _locked(session, name)
    if limits.calls_at_once is not None:
        row.calls_at_once = limits.calls_at_once or None
    if limits.pace is not None:
        row.pace_calls, row.pace_seconds = limits.pace.calls or None, limits.pace.seconds
        row.next_dial_at = None


async def set_default(session: AsyncSession, name: str) -> None:
    """Let this provider dial the calls that have no DID with a provider of its own. Raises `NoSuchProvider`,
    `Conflict`."""
    row = await _locked(session, name)
    if row.drained_at is not None:
        raise Conflict(f"{name} takes no new calls. `ringback providers resume {name}` changes that")
    await session.execute(update(ProviderRow).where(ProviderRow.is_default).values(is_default=False))
    row.is_default = True


async def drain(session: AsyncSession, name: str) -> int:
    """Give the provider no new calls. Returns how many it still has. Raises `NoSuchProvider`."""
    row = await _locked(session, name)
    if row.drained_at is None:
        row.drained_at = await session.scalar(select(func.now()))
    return await count_open(session, name)


async def resume(session: AsyncSession, name: str) -> None:
    """Give the provider new calls again. Raises `NoSuchProvider`."""
    (await _locked(session, name)).drained_at = None


async def remove(session: AsyncSession, name: str) -> None:
    """Remove a provider that nothing uses any more. Its calls stay. Raises `NoSuchProvider`, `Conflict`."""
    row = await _locked(session, name)
    if row.kind is None:
        raise Conflict("This provider is always there. To use another one: ringback providers default NAME")
    if row.is_default:
        raise Conflict(f"{name} is the default. Choose another one first: ringback providers default NAME")
    numbers = await session.scalar(select(func.count()).select_from(Did).where(Did.provider == name))
    if numbers:
        raise Conflict(
            f"{numbers} numbers are dialed by {name}. Change that: ringback dids set NUMBER --provider OTHER"
        )
    if (busy := await count_open(session, name)) or await _has_tasks(session, name):
        raise Conflict(
            f"{name} still has {busy} calls, or recordings to be fetched. `ringback providers drain {name}` gives it "
            "no new ones; then try again"
        )
    await session.delete(row)


async def count_open(session: AsyncSession, name: str) -> int:
    """How many calls of the provider have not ended."""
    counting = select(func.count()).where(Call.provider == name, Call.ended_at.is_(None), ~Call.only_reported)
    return await session.scalar(counting) or 0


def _sealed(secrets: Mapping[str, str], vault: Vault) -> str | None:
    return vault.encrypt(json.dumps(dict(secrets))) if secrets else None


async def _locked(session: AsyncSession, name: str) -> ProviderRow:
    row = await session.get(ProviderRow, name, with_for_update=True)
    if row is None:
        raise NoSuchProvider(f"There is no provider {name}. `ringback providers list` shows them")
    return row


async def _has_tasks(session: AsyncSession, name: str) -> bool:
    asked = select(Task.id).join(Call).where(Call.provider == name, Task.kind.in_(_KINDS_AT_A_PROVIDER)).limit(1)
    return await session.scalar(asked) is not None
