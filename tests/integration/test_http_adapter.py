"""The `http` adapter: the contract of all adapters on a template of its own, its files, and what is ready-made.

The service is a hand-written fake, because the template describes no real one. It dials as the fake Exotel does.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.numbers import PhoneNumber
from app.options import SettingsError
from app.telephony.base import (
    Accepted,
    AdapterContext,
    CallOrder,
    CallRef,
    CallStatus,
    Leg,
    RecordingUnavailable,
    Rejected,
    Unknown,
)
from app.telephony.http import HttpOptions, TemplateProvider
from tests.fake_exotel import AGENT, BUSY, CUSTOMER, NEVER, PATIENT_CUSTOMER, FakeExotelCall, FakeExotelLeg, scripted
from tests.provider_contract import ExpectedEnding, ProviderContract, Stage

TEMPLATE = """
name = "Example"
url = "https://calls.example.com"
values = { token = "API token" }
headers = { Authorization = "Bearer {token}" }
numbers = { agent = "national", customer = "digits" }
dual_channel = true

[order]
path = "/calls"
reference = "data.id"
accepted = { ok = true }
busy_words = ["too many"]
json = { to = "{customer}", from = "{agent}", shown = "{caller_id}", limit = "{max_seconds}", tag = "call {call_id}" }

[ask]
path = "/calls/{reference}"
call = "calls.0"
status = "state"
agent_status = "legs.0.state"
customer_status = "legs.1.state"
ended_at = "ended"
answered_at = "answered"
talk_seconds = "seconds"
recording = "audio"

[cancel]
method = "DELETE"
path = "/calls/{reference}"

[status]
up = "in_progress"
in-progress = "ringing"
completed = "completed"
busy = "busy"
no-answer = "no_answer"
failed = "failed"
canceled = "canceled"
"""


class FakeService:
    def __init__(self) -> None:
        self.calls: dict[str, FakeExotelCall] = {}
        self.dialing: dict[str, asyncio.Task[None]] = {}
        self.requests: list[tuple[str, Any, str | None]] = []
        self.refuses_with: tuple[int, Any] | None = None
        self.url = ""

    async def order(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append((request.path, body, request.headers.get("Authorization")))
        if self.refuses_with is not None:
            status, answer = self.refuses_with
            return web.json_response(answer, status=status)
        call = FakeExotelCall({}, FakeExotelLeg("91" + body["from"][1:]), FakeExotelLeg(body["to"]))
        self.calls[call.sid] = call
        self.dialing[call.sid] = asyncio.create_task(self._dial(call))
        return web.json_response({"ok": True, "data": {"id": call.sid}})

    @staticmethod
    async def _dial(call: FakeExotelCall) -> None:
        await scripted(call)

    async def show(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        if call is None:
            return web.json_response({}, status=404)
        up = call.joined_at is not None and call.ended_at is None
        legs = [{"state": call.agent.status}, {"state": "up" if up else call.customer.status}]
        told: dict[str, Any] = {
            "state": "up" if call.ended_at is None else call.agent.status,
            "legs": legs,
            "audio": "null",
        }
        if call.recording:
            told["audio"] = f"/audio/{call.sid}.mp3"
        told["answered"] = call.joined_at.isoformat() if call.joined_at else None
        told["ended"] = call.ended_at.timestamp() if call.ended_at else None
        told["seconds"] = str(call.talk_seconds)
        return web.json_response({"calls": [told]})

    async def end(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        if call is None:
            return web.json_response({}, status=404)
        if call.ended_at is None:
            self.dialing[call.sid].cancel()
            word = "completed" if call.joined_at else "canceled"
            call.agent.status = call.customer.status = word
            call.ended_at = datetime.now(UTC)
        return web.json_response({})

    async def audio(self, request: web.Request) -> web.Response:
        return web.Response(body=self.calls[request.match_info["id"]].recording, content_type="audio/mpeg")


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    fake = FakeService()
    application = web.Application()
    application.add_routes(
        [
            web.get("/calls/{id}", fake.show),
            web.delete("/calls/{id}", fake.end),
            web.get("/audio/{id}.mp3", fake.audio),
            web.post("/{path:.*}", fake.order),
        ]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield fake
    for task in fake.dialing.values():
        task.cancel()
    await asyncio.gather(*fake.dialing.values(), return_exceptions=True)
    await runner.cleanup()


def make(template: str, url: str, values: str = "token=secret", **changed: object) -> TemplateProvider:
    context = AdapterContext("a-test", "a-test", Path(), home_country="IN", longest_ring_seconds=45)
    stored = {"template": template, "url": url, "values": values, **changed}
    return TemplateProvider.make(HttpOptions.from_values(stored), context)


@pytest.fixture
def template(tmp_path: Path) -> str:
    path = tmp_path / "example.toml"
    path.write_text(TEMPLATE)
    return str(path)


class TestHttp(ProviderContract):
    @pytest.fixture
    async def stage(self, template: str, service: FakeService) -> AsyncIterator[Stage]:
        provider = make(template, service.url)
        yield Stage(
            provider=provider,
            away=lambda: make(template, "http://127.0.0.1:9"),
            customer=CUSTOMER,
            patient_customer=PATIENT_CUSTOMER,
            agent=AGENT,
            endings=(
                ExpectedEnding(BUSY, AGENT, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
                ExpectedEnding(NEVER, AGENT, CallStatus.NO_ANSWER, "no_answer", Leg.CUSTOMER),
                ExpectedEnding(CUSTOMER, NEVER, CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
            ),
        )
        await provider.aclose()


ORDER = CallOrder("call_0123456789abcdef", PhoneNumber(CUSTOMER), PhoneNumber(AGENT), max_call_seconds=1800)


async def test_the_order_is_the_templates(template: str, service: FakeService) -> None:
    provider = make(template, service.url)
    assert isinstance(await provider.place(ORDER), Accepted)
    await provider.aclose()
    body = {"to": CUSTOMER, "from": f"0{AGENT[2:]}", "limit": 1800, "tag": f"call {ORDER.call_id}"}
    assert service.requests == [("/calls", body, "Bearer secret")]  # and no caller ID, because there is none


@pytest.mark.parametrize(
    ("status", "answer", "expected", "retries"),
    [
        (200, {"ok": False, "message": "bad number"}, Rejected, False),
        (200, {"ok": False, "message": "Too many calls"}, Rejected, True),
        (400, {"message": "bad number"}, Rejected, False),
        (429, {}, Rejected, True),
        (503, {}, Unknown, False),
        (503, {"message": "Too many calls"}, Unknown, False),
        (200, {"ok": True}, Unknown, False),
    ],
)
async def test_what_a_refusal_means(
    template: str, service: FakeService, status: int, answer: Any, expected: type[Rejected | Unknown], retries: bool
) -> None:
    service.refuses_with = status, answer
    provider = make(template, service.url)
    result = await provider.place(ORDER)
    await provider.aclose()
    assert isinstance(result, expected)
    assert (isinstance(result, Rejected) and result.retry_after is not None) == retries


async def test_without_ask_only_reports_tell(service: FakeService) -> None:
    provider = make("smartflo", service.url)
    service.refuses_with = 200, {"success": True, "ref_id": "a-reference"}
    assert await provider.place(ORDER) == Accepted("a-reference")
    snapshot = await provider.fetch(CallRef(ORDER.call_id, "a-reference"))
    assert snapshot is not None
    assert snapshot.events == ()
    with pytest.raises(RecordingUnavailable):
        await provider.open_recording(CallRef(ORDER.call_id, "a-reference"), None)
    await provider.aclose()
    body = {
        "agent_number": AGENT[2:],
        "destination_number": CUSTOMER,
        "async": 1,
        "custom_identifier": ORDER.call_id,
    }
    assert service.requests == [("/v1/click_to_call", body, "secret")]


async def test_knowlarity(service: FakeService) -> None:
    values = "authorization=key; api_key=other; k_number=+918929700000"
    provider = make("knowlarity", service.url, values, caller_id="+918047112345")
    service.refuses_with = 200, {"success": {"status": "success", "call_id": "29ecc330"}}
    assert await provider.place(ORDER) == Accepted("29ecc330")
    await provider.aclose()
    body = {
        "k_number": "+918929700000",
        "agent_number": f"+{AGENT}",
        "customer_number": f"+{CUSTOMER}",
        "caller_id": "+918047112345",
        "additional_params": {"uniqueid": ORDER.call_id},
    }
    assert service.requests == [("/Basic/v1/account/call/makecall", body, "key")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('to = "{customer}"', 'to = "{custmer}"', r"example.toml: order.json.to: there is no \{custmer\} here"),
        ('path = "/calls/{reference}"', 'path = "/calls/{customer}"', r"ask.path: there is no \{customer\} here"),
        ('reference = "data.id"', "", "order.reference: Field required"),
        ("[cancel]", "[cansel]", "cansel: Extra inputs are not permitted"),
        ('up = "in_progress"', 'up = "talking"', "status.up: Input should be"),
        ('name = "Example"', 'name = "Example', "at line 2"),
        ("https://calls", "ftp://calls", "url: String should match"),
    ],
)
def test_a_template_that_is_wrong_names_the_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEMPLATE
    path = tmp_path / "example.toml"
    path.write_text(TEMPLATE.replace(old, new))
    with pytest.raises(SettingsError, match=said):
        make(str(path), "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("values", "said"),
    [("", r"needs token \(API token\)"), ("token", "name=value"), ("token=a; tokn=b", "has no tokn")],
)
def test_values_that_are_wrong(template: str, values: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^values: .*{said}"):
        make(template, "http://127.0.0.1:9", values)


def test_the_template_of_the_page_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/http.md").read_text()
    path = tmp_path / "page.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    assert make(str(path), "http://127.0.0.1:9").capabilities.cancel


def test_a_template_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"Ready-made ones are knowlarity, smartflo"):
        make("another", "http://127.0.0.1:9")
