"""One telephone is one number everywhere: both dialects, filters, DIDs, the command line. And extensions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.db import Database
from app.main import create_app
from app.models import Call, Did, User
from app.settings import Settings
from app.telephony.simulator import Simulator
from tests.conftest import bearer, client_of
from tests.envelopes import data_of, error_of
from tests.integration.command import Ringback
from tests.integration.current_calls import ALLOCATION, CREATE, CREATED, add_did, order, set_pool

SEED = "/api/developer/calls/click2call"
SPELLINGS = ("9876543210", "09876543210", "+919876543210", "919876543210", "00919876543210", "+91 98765-43210")
ASTERISK = {"RINGBACK_ASTERISK_URL": "http://127.0.0.1:1", "RINGBACK_ASTERISK_USERNAME": "u"}


@asynccontextmanager
async def installation(settings: Settings, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    application = create_app(settings.model_copy(update=changed))
    async with application.router.lifespan_context(application), client_of(application) as client:
        yield client


async def stored(db: Database, call_id: str) -> tuple[str, str | None]:
    async with db.transaction() as session:
        call = await session.get_one(Call, call_id)
        return call.customer_number, call.agent_number


@pytest.mark.parametrize("path", [SEED, CREATE])
async def test_every_spelling_is_one_number(
    client: httpx.AsyncClient, db: Database, headers: Any, did: Did, path: str
) -> None:
    for written in SPELLINGS:
        numbers = {"customer_number": written, "agent_number": written}
        answer = await client.post(path, json={**order(did), **numbers}, headers=headers)
        call_id = data_of(answer, CREATED)["call_id"]
        assert await stored(db, call_id) == ("919876543210", "919876543210")
    for written in (*SPELLINGS, "76543", " 919876543210"):
        for field in ("customer_number", "agent_number"):
            answer = await client.get("/api/calls/recent", params={field: written}, headers=headers)
            data = data_of(answer, "Recent call logs fetched")
            assert data["total"] == len(SPELLINGS), written
            assert data["filters"][field] == written


@pytest.mark.parametrize(
    ("home", "spelled", "digits"),
    [
        ("GB", ("07400123456", "7400123456", "+44 7400 123456", "00447400123456"), "447400123456"),
        ("US", ("(201) 555-0123", "2015550123", "1-201-555-0123", "+12015550123"), "12015550123"),
        ("US", ("011919876543210", "+919876543210", "919876543210"), "919876543210"),
        ("GB", ("15005550001", "+15005550001"), "15005550001"),
    ],
)
async def test_another_home_country(
    migrated: Settings, db: Database, user: User, home: str, spelled: tuple[str, ...], digits: str
) -> None:
    async with installation(migrated, home_country=home) as client:
        headers = await bearer(client, user)
        for written in spelled:
            numbers = {"customer_number": written, "agent_number": "919876543210"}
            answer = await client.post(SEED, json=numbers, headers=headers)
            call_id = data_of(answer, CREATED)["call_id"]
            assert (await stored(db, call_id))[0] == digits, written


async def test_a_rented_number_is_one_for_its_channels(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    did = await add_did(db, user, channels=5)
    await set_pool(db, user, 5)
    local = did.number[2:]
    both = {"allocations": [{"did": f"0{local}", "allocated_channels": 1}, {"did": local, "allocated_channels": 1}]}
    assert "named twice" in error_of(await client.put(ALLOCATION, json=both, headers=headers), 422)
    for written in (local, f"0{local}", f"+91-{local}"):
        used = await client.get(f"{ALLOCATION}/utilization", params={"did": written}, headers=headers)
        assert [row["phone_number_id"] for row in used.json()["data"]["numbers"]] == [did.id]
        configured = await client.post(
            "/api/calls/inbound-callback-url", json={"phone_number": written, "transcript": True}, headers=headers
        )
        assert configured.json()["data"]["phone_number_id"] == did.id


async def test_the_command_line_reads_numbers_alike(ringback: Ringback, db: Database, user: User) -> None:
    added = ringback("dids", "add", "080 4567 1234", "--user", user.email).check()
    assert "918045671234" in added
    assert "already" in ringback("dids", "add", "+91 8045671234").refused()
    assert "expired" in ringback("dids", "expire", "8045671234").check()
    assert "8 to 15 digits" in ringback("dids", "add", "45671234x").refused()
    async with db.transaction() as session:
        numbers = await session.scalars(select(Did.number).where(Did.user_id == user.id))
        assert list(numbers) == ["918045671234"]


async def test_an_extension_is_an_agent_and_never_a_customer(
    client: httpx.AsyncClient, db: Database, headers: Any, did: Did
) -> None:
    body = {**order(did), "agent_number": "101"}
    call_id = data_of(await client.post(CREATE, json=body, headers=headers), CREATED)["call_id"]
    assert await stored(db, call_id) == ("919999999999", "101")
    listed = await client.get("/api/calls/recent", params={"agent_number": "101"}, headers=headers)
    assert [call["agent_number"] for call in listed.json()["data"]["calls"]] == ["101"]
    shown = await client.get(f"/api/calls/{call_id}/transcript", headers=headers)
    assert shown.json()["data"]["agent_number"] == "xxx"
    error = error_of(await client.post(CREATE, json={**body, "customer_number": "101"}, headers=headers), 422)
    assert error.startswith("customer_number: ")


@pytest.mark.parametrize("template", [None, "PJSIP/{number}"])
async def test_an_extension_needs_a_way_to_dial_it(
    migrated: Settings, user: User, monkeypatch: pytest.MonkeyPatch, template: str | None
) -> None:
    for name, value in {**ASTERISK, "RINGBACK_ASTERISK_PASSWORD": "p"}.items():
        monkeypatch.setenv(name, value)
    if template is not None:
        monkeypatch.setenv("RINGBACK_ASTERISK_EXTENSION_DIAL", template)
    async with installation(migrated, telephony_provider="asterisk") as client:
        numbers = {"customer_number": "919999999999", "agent_number": "101"}
        answer = await client.post(SEED, json=numbers, headers=await bearer(client, user))
        if template is None:
            error = error_of(answer, 400)
            assert error.startswith("agent_number: 101 is an extension")
            assert "RINGBACK_ASTERISK_EXTENSION_DIAL" in error
        else:
            data_of(answer, CREATED)


def test_the_simulator_dials_extensions() -> None:
    assert Simulator.capabilities.extension_refusal is None
