"""The example of docs/adapters.md, taken from the page, under the contract of all adapters.

Its provider is a hand-written fake, because Acme does not exist.
"""

import importlib.util
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.telephony.base import CallStatus, Leg
from app.telephony.simulator import CONVERSATIONS
from tests.provider_contract import ExpectedEnding, ProviderContract, Stage

PAGE = Path(__file__).parents[2] / "docs/adapters.md"
AGENT, CUSTOMER, PATIENT_CUSTOMER = "911000000001", "912020000001", "912000000001"
BUSY, NEVER = "914860000001", "913000000001"


class FakeAcme:
    """Calls follow the clock: half a second of ringing for each leg, then what the number says."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}

    async def create(self, asked: web.Request) -> web.Response:
        body = await asked.json()
        call = {"id": f"acme-{len(self.calls)}", "placed": datetime.now(UTC), "deleted": None, **body}
        self.calls[call["id"]] = call
        return web.json_response({"id": call["id"]}, status=201)

    async def find(self, asked: web.Request) -> web.Response:
        found = [call for call in self.calls.values() if call["reference"] == asked.query["reference"]]
        return web.json_response({"calls": [self.now(call) for call in found]})

    async def delete(self, asked: web.Request) -> web.Response:
        call = self.calls[asked.match_info["id"]]
        call["deleted"] = call["deleted"] or datetime.now(UTC)
        return web.json_response({})

    async def recording(self, asked: web.Request) -> web.FileResponse:
        return web.FileResponse(CONVERSATIONS / "callback.wav")

    def now(self, call: dict[str, Any]) -> dict[str, Any]:
        placed = call["placed"]
        said: dict[str, Any] = dict.fromkeys(("agent_rang_at", "customer_rang_at", "answered_at", "ended_at"))
        said |= {"id": call["id"], "status": "ringing", "ended_at_leg": None, "recording": None}

        def happens(name: str, after: float) -> bool:
            at = placed + timedelta(seconds=after)
            if at > (call["deleted"] or datetime.now(UTC)):
                return False
            said[name] = at.isoformat()
            return True

        def end(after: float, status: str, leg: str) -> None:
            if happens("ended_at", after):
                said.update(status=status, ended_at_leg=leg, recording="/file" if said["answered_at"] else None)

        refusals = {BUSY: "busy", NEVER: "no-answer"}
        if happens("agent_rang_at", 0.1):
            if refusal := refusals.get(call["agent"].lstrip("+")):
                end(0.6, refusal, "agent")
            elif happens("customer_rang_at", 0.6):
                if refusal := refusals.get(call["customer"].lstrip("+")):
                    end(1.1, refusal, "customer")
                elif happens("answered_at", 1.1):
                    end(2.0 if call["customer"].lstrip("+") == CUSTOMER else 3600, "completed", "customer")
        if call["deleted"] and not said["ended_at"]:
            answered = said["answered_at"]
            said.update(ended_at=call["deleted"].isoformat(), status="completed" if answered else "canceled")
            said.update(ended_at_leg="agent", recording="/file" if answered else None)
        return said


@pytest.fixture
async def acme_url() -> AsyncIterator[str]:
    fake = FakeAcme()
    application = web.Application()
    application.add_routes(
        [
            web.post("/calls", fake.create),
            web.get("/calls", fake.find),
            web.delete("/calls/{id}", fake.delete),
            web.get("/file", fake.recording),
        ]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module on the page."""
    code = PAGE.read_text().split("```python\n", 1)[1].split("\n```", 1)[0]
    path = tmp_path_factory.mktemp("example") / "acme.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("acme", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestExample(ProviderContract):
    @pytest.fixture
    async def stage(self, acme: Any, acme_url: str) -> AsyncIterator[Stage]:
        provider = acme.Acme(acme.AcmeOptions(url=acme_url, token="a token"))
        yield Stage(
            provider=provider,
            away=lambda: acme.Acme(acme.AcmeOptions(url="http://127.0.0.1:9", token="a token")),
            customer=CUSTOMER,
            patient_customer=PATIENT_CUSTOMER,
            agent=AGENT,
            endings=(
                ExpectedEnding(BUSY, AGENT, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
                ExpectedEnding(CUSTOMER, NEVER, CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
            ),
        )
        await provider.aclose()
