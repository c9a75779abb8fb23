"""Two Asterisks at once, each a provider of one installation."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import httpx
import pytest
import soundfile
from sqlalchemy import update

from app.models import Did
from lab.asterisk import AsteriskServer
from tests.asterisk.lab_installation import Lab, LabInstallation, eventually
from tests.command import invoke

SECOND = "second"


@pytest.fixture(scope="module")
async def second(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsteriskServer]:
    """Another Asterisk, which reaches the same telephones."""
    server = AsteriskServer(tmp_path_factory.mktemp("second"), phones_port=lab.phones.port)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture(scope="module")
async def installation(
    lab: Lab, second: AsteriskServer, cheap_speech: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabInstallation]:
    """The environment has the first Asterisk, and a row the second. A DID is dialed by the second."""
    opened = LabInstallation(lab, tmp_path_factory.mktemp("two"), **cheap_speech)
    try:
        await opened.open("calls-1", "calls-2")
        ringback(
            opened,
            "providers",
            "add",
            SECOND,
            "--kind",
            "asterisk",
            *options(second),
            "-o",
            "dial=PJSIP/{number}@nowhere",
        )
        yield opened
    finally:
        await opened.close()


def options(server: AsteriskServer) -> list[str]:
    return [part for name, value in server.options().items() for part in ("-o", f"{name}={value}")]


def ringback(installation: LabInstallation, *arguments: str) -> str:
    done = invoke(installation.installation.environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def add_did(installation: LabInstallation, provider: str | None) -> str:
    number = f"9180{secrets.randbelow(10**8):08d}"
    await asyncio.to_thread(ringback, installation, "dids", "add", number, "--user", "caller@example.com")
    async with installation.db.transaction() as session:
        await session.execute(update(Did).where(Did.number == number).values(provider=provider))
    return number


async def place(installation: LabInstallation, did: str, customer: str, agent: str) -> str:
    order = {"customer_number": f"+{customer}", "agent_number": f"+{agent}", "did": did}
    answer = await installation.api.post("/calls/click2call", json=order)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["call_id"])


async def readiness(installation: LabInstallation) -> list[str]:
    async with httpx.AsyncClient(base_url=installation.installation.base_url) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 200, "the default provider is there all the time"
        missing: list[str] = answer.json()["missing"]
        return missing


async def test_two_asterisks_at_once(lab: Lab, second: AsteriskServer, installation: LabInstallation) -> None:
    dids = {"environment": await add_did(installation, None), SECOND: await add_did(installation, SECOND)}

    # The second one's trunk is wrong, which its calls find. Options that change reach the workers that run.
    wrong = await place(installation, dids[SECOND], lab.number("212"), lab.number("100"))
    assert (await installation.ended(wrong)).status == "failed"
    await asyncio.to_thread(ringback, installation, "providers", "set", SECOND, "-o", "dial=PJSIP/{number}@trunk-from")
    await asyncio.sleep(1.5)  # each process reads the providers once a second

    async def both_are_there() -> bool:
        return await readiness(installation) == []

    await eventually(both_are_there)
    calls = {
        name: [await place(installation, did, lab.number("212"), lab.number("100")) for _ in range(3)]
        for name, did in dids.items()
    }
    await asyncio.gather(*(installation.reached(call_id, "answered") for ids in calls.values() for call_id in ids))
    for name, server in (("environment", lab.server), (SECOND, second)):
        up = {channel.rpartition("-")[0] for channel in server.answered()}
        assert up >= set(calls[name])
        assert not up & set(calls["environment" if name == SECOND else SECOND])
    for name, ids in calls.items():
        for call_id in ids:
            call = await installation.ends_well(call_id)
            assert call.provider == name
            assert soundfile.info(await installation.recording(call_id)).channels == 2
    assert "Ready for a call" in await asyncio.to_thread(ringback, installation, "providers", "check")


async def test_one_that_is_lost_is_named_and_calls_of_the_other_go_on(
    lab: Lab, second: AsteriskServer, installation: LabInstallation
) -> None:
    dids = {"environment": await add_did(installation, None), SECOND: await add_did(installation, SECOND)}
    goes_on = await place(installation, dids["environment"], lab.number("212"), lab.number("100"))
    cut = await place(installation, dids[SECOND], lab.number("212"), lab.number("100"))
    await asyncio.gather(installation.reached(goes_on, "answered"), installation.reached(cut, "answered"))
    await asyncio.to_thread(second.kill)

    async def is_named() -> bool:
        missing = await readiness(installation)
        return [part.partition(":")[0] for part in missing] == [SECOND] and f"providers check {SECOND}" in missing[0]

    await eventually(is_named)
    waits = await place(installation, dids[SECOND], lab.number("212"), lab.number("100"))
    meanwhile = await place(installation, dids["environment"], lab.number("212"), lab.number("100"))
    await installation.ends_well(goes_on)
    await installation.ends_well(meanwhile)
    assert (await installation.call(waits)).status == "queued"
    await asyncio.to_thread(second.start)
    await installation.ends_well(waits)
    assert (await installation.ended(cut)).status == "completed", "it talked, and its end was not seen"

    async def all_is_well() -> bool:
        return await readiness(installation) == []

    await eventually(all_is_well)
    await installation.at_most_one_invite(goes_on, cut, waits, meanwhile)
