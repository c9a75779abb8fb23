"""Several telephony providers: as rows, as a process uses them, and which one dials a call."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from app import telephony_providers
from app.db import Database
from app.engine_models import ProviderRow
from app.errors import Conflict
from app.models import Call, User
from app.options import SettingsError
from app.provider_directory import ProviderDirectory
from app.providers import vault
from app.settings import Settings
from app.telephony.base import ProviderError
from app.telephony.simulator import Simulator
from tests.integration.command import Ringback
from tests.integration.current_calls import add_did, order

SEED = {"customer_number": "919999999999", "agent_number": "918888888888"}


def new_name() -> str:
    return f"p-{secrets.token_hex(5)}"


@pytest.fixture
async def name(db: Database, migrated: Settings) -> str:
    """A provider that simulates."""
    name = new_name()
    async with db.transaction() as session:
        options = {"speed": "1000"}
        await telephony_providers.add(session, name, "simulator", options=options, secrets={}, vault=vault(migrated))
    return name


@pytest.fixture
async def directory(
    db: Database, migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ProviderDirectory]:
    """Reads the database each time."""
    monkeypatch.setattr("app.provider_directory.FRESH_SECONDS", -1.0)
    opened = ProviderDirectory(db, migrated, environment=Simulator(Path("nowhere")))
    yield opened
    await opened.aclose()


# The command line


def test_the_life_of_a_provider(ringback: Ringback) -> None:
    name = new_name()
    listed = ringback("providers", "list").check()
    assert "environment" in listed
    added = ringback(
        "providers", "add", name, "--kind", "asterisk", "-o", "url=http://127.0.0.1:1", "-o", "username=ringback",
        "-o", "password=a-very-secret-word", "--calls-at-once", "30", "--pace", "200/minute",
    ).check()  # fmt: skip
    assert f"providers check {name}" in added
    listed = ringback("providers", "list").check()
    line = next(line for line in listed.splitlines() if name in line)
    assert "asterisk" in line
    assert "200 per minute" in line
    assert "30" in line
    assert "a-very-secret-word" not in listed
    assert "already" in ringback("providers", "add", name, "--kind", "simulator").refused()
    checked = ringback("providers", "check", name)
    assert checked.code == 1
    assert "http.conf" in checked.out
    ringback("providers", "set", name, "-o", "url=http://127.0.0.1:2", "--pace", "0").check()
    listed = ringback("providers", "list").check()
    assert "http://127.0.0.1:2" in listed
    assert "200 per minute" not in listed
    assert "takes no new calls" in ringback("providers", "drain", name).check()
    assert "takes no new calls" in ringback("providers", "default", name).refused()
    assert "takes new calls" in ringback("providers", "resume", name).check()
    did = f"9180{secrets.randbelow(10**8):08d}"
    ringback("dids", "add", did, "--provider", name).check()
    assert "dids set" in ringback("providers", "remove", name).refused()
    ringback("dids", "set", did, "--provider", "default").check()
    assert "Removed" in ringback("providers", "remove", name).check()
    assert name not in ringback("providers", "list").check()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "Has Blanks", "--kind", "simulator"), "lower case"),
        (("add", "default", "--kind", "simulator"), "lower case"),
        (("add", "a-b", "--kind", "telegraph"), "Choose one of: asterisk, "),
        (("add", "a-b", "--kind", "simulator", "-o", "sped=2"), "simulator has no option sped"),
        (("add", "a-b", "--kind", "simulator", "-o", "speed=fast"), "speed: Input should be a valid number"),
        (("add", "a-b", "--kind", "simulator", "-o", "speed"), "write NAME=VALUE"),
        (("add", "a-b", "--kind", "simulator", "--pace", "2 a day"), "write it as 2/second"),
        (("add", "a-b", "--kind", "asterisk", "-o", "url=http://a:1", "-o", "username=u"), "password: is not set"),
        (("add", "a-b", "--kind", "asterisk", "-o", "password=@/no/such/file"), "/no/such/file"),
        (("set", "no-such", "--pace", "1/second"), "There is no provider no-such"),
        (("set", "environment", "-o", "speed=2"), "Environment variables configure this provider"),
        (("check", "no-such"), "There is no provider no-such"),
        (("drain", "no-such"), "There is no provider no-such"),
        (("default", "no-such"), "There is no provider no-such"),
        (("remove", "no-such"), "There is no provider no-such"),
        (("remove", "environment"), "always there"),
    ],
)
def test_what_is_wrong_is_said(ringback: Ringback, arguments: tuple[str, ...], said: str) -> None:
    assert said in ringback("providers", *arguments).refused()


async def test_secrets_are_encrypted_and_need_the_secret_key(
    ringback: Ringback, db: Database, migrated: Settings
) -> None:
    name = new_name()
    ringback(
        "providers", "add", name, "--kind", "asterisk", "-o", "url=http://127.0.0.1:1", "-o", "username=ringback",
        "-o", "password=a-very-secret-word",
    ).check()  # fmt: skip
    async with db.transaction() as session:
        row = await session.get_one(ProviderRow, name)
        config = await telephony_providers.get_config(session, name)
    assert "a-very-secret-word" not in f"{row.options} {row.secrets}"
    assert config.values(vault(migrated))["password"] == "a-very-secret-word"
    other = vault(migrated.model_copy(update={"secret_key": type(migrated.secret_key)("0123456789" * 4)}))
    with pytest.raises(SettingsError, match=r"another RINGBACK_SECRET_KEY\. Set them again"):
        config.values(other)
    ringback("providers", "set", name, "-o", "username=other").check()
    async with db.transaction() as session:
        values = (await telephony_providers.get_config(session, name)).values(vault(migrated))
    assert (values["username"], values["password"]) == ("other", "a-very-secret-word")
    assert "a-very-secret-word" not in ringback("providers", "list").check()


# As a process uses them


async def test_a_change_of_options_reaches_a_running_process(
    db: Database,
    migrated: Settings,
    directory: ProviderDirectory,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    async def close() -> None:
        closed.append(True)

    async def change(speed: str) -> None:
        async with db.transaction() as session:
            options = {"speed": speed}
            await telephony_providers.change(session, name, options=options, secrets={}, vault=vault(migrated))

    async with directory.use(name) as first:
        monkeypatch.setattr(first, "aclose", close)
        await change("2000")
        async with directory.use(name) as second:
            assert second is not first
        assert not closed, "somebody still uses it"
    assert closed == [True]
    async with directory.use(name) as again:
        assert again is second


async def test_a_provider_that_is_gone_is_named(db: Database, directory: ProviderDirectory, name: str) -> None:
    async with directory.use(name):
        pass
    async with db.transaction() as session:
        await telephony_providers.remove(session, name)
    with pytest.raises(ProviderError, match=f"no telephony provider {name}"):
        async with directory.use(name):
            pass


async def test_an_adapter_can_come_from_an_installed_package(
    db: Database, migrated: Settings, directory: ProviderDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "acme_ringback-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ringback\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ringback.telephony]\nacme = acme_ringback:Acme\n")
    (tmp_path / "acme_ringback.py").write_text(
        "from app.telephony.simulator import Simulator\n\n\nclass Acme(Simulator):\n    kind = 'acme'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    name = new_name()
    async with db.transaction() as session:
        await telephony_providers.add(session, name, "acme", options={}, secrets={}, vault=vault(migrated))
    async with directory.use(name) as adapter:
        assert adapter.kind == "acme"
    del sys.modules["acme_ringback"]


# Which one dials a call


async def provider_of(db: Database, call_id: str) -> str:
    async with db.transaction() as session:
        return (await session.scalars(select(Call.provider).where(Call.id == call_id))).one()


async def test_the_provider_of_the_did_dials_its_calls(
    client: httpx.AsyncClient, db: Database, user: User, name: str, headers: dict[str, str]
) -> None:
    seed = await client.post("/api/developer/calls/click2call", json=SEED, headers=headers)
    assert await provider_of(db, seed.json()["data"]["call_id"]) == "environment"
    did = await add_did(db, user)
    async with db.transaction() as session:
        await session.execute(update(type(did)).where(type(did).id == did.id).values(provider=name))
    await asyncio.sleep(1.1)  # the API reads the providers once a second
    placed = await client.post("/api/calls/click2call", json=order(did), headers=headers)
    assert await provider_of(db, placed.json()["data"]["call_id"]) == name
    async with db.transaction() as session:
        assert await telephony_providers.drain(session, name) == 1
        with pytest.raises(Conflict, match="1 calls"):
            await session.execute(update(type(did)).where(type(did).id == did.id).values(provider=None))
            await telephony_providers.remove(session, name)
        await session.execute(update(type(did)).where(type(did).id == did.id).values(provider=name))
    refused = await client.post("/api/calls/click2call", json=order(did), headers=headers)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "30"
    assert f"{name} takes no new calls" in refused.json()["error"]
    async with db.transaction() as session:
        await telephony_providers.resume(session, name)
    again = await client.post("/api/calls/click2call", json=order(did), headers=headers)
    assert again.status_code == 200
