"""The adapter of Plivo and Vobiz under the contract of all adapters. Its servers are fakes. Plivo's own client confirms
the shape of one, and both providers' own validators the signatures."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import plivo
import pytest
import vobiz
from plivo.utils import signature_v3
from vobiz.utils import signature_v3 as vobiz_signature_v3

from app.numbers import PhoneNumber
from app.options import SettingsError
from app.telephony.base import (
    Accepted,
    CallOrder,
    CallRef,
    CallStatus,
    Leg,
    Notification,
    PlaceResult,
    ProviderError,
    RecordingUnavailable,
    Rejected,
    Unknown,
)
from app.telephony.plivo import Plivo, PlivoOptions, Vobiz, VobizOptions
from app.telephony.plivo import adapter as adapter_module
from app.telephony.plivo.events import LegRecord, call_events, ended_leg
from tests.integration.fake_plivo import AUTH_ID, AUTH_TOKEN, FakePlivo
from tests.integration.two_leg_calls import (
    AGENT,
    BUSY,
    CALLER_ID,
    CUSTOMER,
    ENDINGS,
    NEVER,
    PATIENT_CUSTOMER,
    adapter_context,
    running,
)
from tests.provider_contract import ProviderContract, Stage, new_order


def adapter(kind: str, url: str, fake: FakePlivo | None = None, **more: object) -> Plivo:
    base_url = f"{url}/api/v1" if kind == "vobiz" else f"{url}/v1"
    values = {"auth_id": AUTH_ID, "auth_token": AUTH_TOKEN, "caller_id": f"+{CALLER_ID}", "base_url": base_url, **more}
    adapters: dict[str, tuple[type[Plivo], Any]] = {"plivo": (Plivo, PlivoOptions), "vobiz": (Vobiz, VobizOptions)}
    base, options = adapters[kind]

    class Answering(base):  # type: ignore[valid-type, misc]
        """Its server answers the provider's question for instructions."""

        async def place(self, order: CallOrder) -> PlaceResult:
            if fake is not None and order.instructions_url is not None:
                fake.documents[order.instructions_url] = self.instructions(order).body
            result: PlaceResult = await super().place(order)
            return result

    made: Plivo = Answering.make(options.from_values(values), adapter_context())
    return made


@pytest.fixture(params=["plivo", "vobiz"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake(kind: str) -> FakePlivo:
    return FakePlivo(vobiz=kind == "vobiz")


@pytest.fixture
async def url(fake: FakePlivo) -> AsyncIterator[str]:
    async with running(fake.routes()) as url:
        yield url


@pytest.fixture
async def provider(kind: str, url: str, fake: FakePlivo) -> AsyncIterator[Plivo]:
    made = adapter(kind, url, fake, delete_recordings=True)
    yield made
    await made.aclose()


class TestPlivo(ProviderContract):
    @pytest.fixture
    def stage(self, kind: str, provider: Plivo) -> Stage:
        return Stage(
            provider=provider,
            away=lambda: adapter(kind, "http://127.0.0.1:9"),
            customer=CUSTOMER,
            patient_customer=PATIENT_CUSTOMER,
            agent=AGENT,
            endings=ENDINGS,
        )


def ref_of(order: CallOrder, reference: str | None = None) -> CallRef:
    numbers = order.customer_number, order.agent_number, order.caller_id
    return CallRef(order.call_id, reference, *numbers, datetime.now(UTC))


async def test_the_order_and_its_instructions(provider: Plivo, fake: FakePlivo) -> None:
    order = replace(new_order(CUSTOMER, AGENT), notify_url="https://calls.example.com/n?a=1&b=2", max_call_seconds=600)
    assert isinstance(await provider.place(order), Accepted)
    body = fake.calls[0].body
    assert (body["from"], body["to"], body["ring_timeout"]) == (str(CALLER_ID), AGENT, 5)
    assert body["hangup_url"] == order.notify_url
    record, dial = ElementTree.fromstring(provider.instructions(order).body)
    assert record.attrib["startOnDialAnswer"] == "true"
    assert record.attrib["maxLength"] == dial.attrib["timeLimit"] == "600"
    assert dial.attrib["callbackUrl"] == order.notify_url
    assert dial.findtext("Number") == CUSTOMER
    silent = ElementTree.fromstring(provider.instructions(replace(order, record=False)).body)
    assert silent.find("Record") is None


async def test_what_is_refused(provider: Plivo, fake: FakePlivo) -> None:
    fake.failures = ["busy", "refused"]
    busy, refused = [await provider.place(new_order(CUSTOMER, AGENT)) for _ in range(2)]
    assert isinstance(busy, Rejected)
    assert busy.retry_after
    assert isinstance(refused, Rejected)
    assert refused.retry_after is None
    nowhere = await provider.place(replace(new_order(CUSTOMER, AGENT), instructions_url=None))
    assert isinstance(nowhere, Rejected)
    assert "public address" in nowhere.reason
    assert not fake.calls


@pytest.mark.parametrize("failure", ["lost", "broken"])
async def test_a_lost_answer_is_found_by_its_numbers(provider: Plivo, fake: FakePlivo, failure: str) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    fake.failures = [failure]
    assert isinstance(await provider.place(order), Unknown)
    ref = ref_of(order)
    async with asyncio.timeout(10):
        while (found := await provider.fetch(ref)) is None:  # a queued call is not listed
            await asyncio.sleep(0.02)
    assert found.reference == fake.calls[0].uuid
    assert await provider.fetch(replace(ref, taken=frozenset({fake.calls[0].uuid}))) is None
    await provider.hangup(ref)
    found = await provider.fetch(ref)
    assert found is not None
    assert (found.reference, found.events[-1].status) == (fake.calls[0].uuid, CallStatus.CANCELED)


@pytest.mark.parametrize("zoneless", [False, True])
async def test_whose_call_a_lost_answer_is_not(provider: Plivo, fake: FakePlivo, zoneless: bool) -> None:
    """Also where lists cannot be filtered."""
    fake.zoneless, fake.filters = zoneless, False
    order = new_order(PATIENT_CUSTOMER, AGENT)
    others = [new_order(PATIENT_CUSTOMER, NEVER), order, replace(order, caller_id=PhoneNumber("14155550123")), order]
    for one in others:
        assert isinstance(await provider.place(one), Accepted)
    elsewhere, old, _, ours = fake.calls
    old.call.placed -= timedelta(minutes=4)
    async with asyncio.timeout(10):
        while ours.call.legs()[0].status == "queued":
            await asyncio.sleep(0.02)
    elsewhere.call.placed = ours.call.placed
    found = await provider.fetch(ref_of(order))
    assert found is not None
    assert found.reference == ours.uuid
    assert await provider.fetch(replace(ref_of(order), taken=frozenset({ours.uuid}))) is None
    ours.call.placed -= timedelta(minutes=15)
    assert (await provider.fetch(ref_of(order)) is not None) == zoneless, "without a zone, quarters are all alike"


async def test_a_call_that_has_ended_and_has_no_record_yet(
    kind: str, url: str, provider: Plivo, fake: FakePlivo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker than the one that saw it live may ask."""
    order = new_order(BUSY, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    fake.hides_records = True
    ref = ref_of(order, result.reference)
    other = adapter(kind, url)
    async with asyncio.timeout(10):
        while fake.calls[0].call.legs()[0].ended is None:
            await asyncio.sleep(0.02)
    snapshot = await other.fetch(ref)
    assert snapshot is not None
    assert not snapshot.events
    with pytest.raises(ProviderError, match="yet") as raised:
        await other.open_recording(ref, None)
    assert not isinstance(raised.value, RecordingUnavailable)
    fake.hides_records = False
    snapshot = await other.fetch(ref)
    assert snapshot is not None
    assert snapshot.events[-1].status == CallStatus.BUSY
    fake.hides_records = True
    monkeypatch.setattr(adapter_module, "_RECORD_COMES_SECONDS", 0.0)
    assert await other.fetch(ref) is None, "it never comes"
    await other.aclose()


async def test_an_unknown_word_changes_nothing(
    provider: Plivo, fake: FakePlivo, caplog: pytest.LogCaptureFixture
) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while fake.calls[0].call.legs()[0].status == "queued":
            await asyncio.sleep(0.02)
    fake.status_word = "levitating"
    with caplog.at_level(logging.WARNING, "ringback"):
        for _ in range(2):
            snapshot = await provider.fetch(ref_of(order, result.reference))
            assert snapshot is not None
            assert not snapshot.events
    assert len([record for record in caplog.records if "'levitating'" in record.getMessage()]) == 1


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_an_unknown_hangup_cause_is_a_failure_that_shows_it() -> None:
    words: list[object] = []
    agent = LegRecord(AGENT, None, ended=NOON, cause="Solar Flare")
    (ended,) = call_events(agent, None, NOON, lambda what, word: words.append((what, word)))
    assert (ended.status, ended.leg) == (CallStatus.FAILED, Leg.AGENT)
    assert "Solar Flare" in (ended.detail or "")
    assert words == [("hangup cause", "Solar Flare")]
    (ended,) = call_events(replace(agent, cause="busy line"), None, NOON, lambda what, word: words.append(word))
    assert ended.status == CallStatus.BUSY
    assert len(words) == 1


def test_a_call_whose_customer_was_not_dialed() -> None:
    agent = LegRecord(AGENT, None, answered=NOON, ended=NOON + timedelta(seconds=2))

    def keys_at(seconds: float) -> list[str]:
        now = NOON + timedelta(seconds=seconds)
        return [event.key for event in call_events(agent, None, now, lambda what, word: None)]

    assert keys_at(10) == ["agent:answered"], "the customer's record may come later"
    assert keys_at(30) == ["agent:answered", "ended"]


def test_the_record_of_a_talk() -> None:
    record = {"to_number": CUSTOMER, "answer_time": "2026-01-01 17:30:10+05:30", "end_time": "2026-01-01 12:00:40"}
    customer = ended_leg({**record, "hangup_source": "Callee", "bill_duration": 30})
    agent = LegRecord(AGENT, None, answered=NOON)
    _, answered, ended = call_events(agent, customer, NOON + timedelta(minutes=1), lambda what, word: None)
    assert (answered.at, answered.late) == (NOON + timedelta(seconds=10), False)
    assert (ended.at, ended.late) == (NOON + timedelta(minutes=1), True), "its time has no zone"
    assert (ended.talk_seconds, ended.ended_by, ended.has_recording) == (30, Leg.CUSTOMER, True)


async def test_an_earlier_call_to_the_same_customer_says_nothing(provider: Plivo, fake: FakePlivo) -> None:
    assert isinstance(await provider.place(new_order(CUSTOMER, AGENT)), Accepted)
    fake.calls[0].call.placed -= timedelta(minutes=1)
    order = new_order(CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    has_ended = False
    async with asyncio.timeout(10):
        while not has_ended:
            snapshot = await provider.fetch(ref_of(order, result.reference))
            has_ended = fake.calls[1].call.legs()[0].ended is not None
            assert snapshot is not None
            assert has_ended or "ended" not in [event.key for event in snapshot.events]


@pytest.mark.parametrize("link", ["null", None])
async def test_a_link_that_is_not_there_yet(provider: Plivo, fake: FakePlivo, link: str | None) -> None:
    order = new_order(CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while fake.calls[0].call.legs()[0].ended is None:
            await asyncio.sleep(0.02)
    fake.link = link
    with pytest.raises(ProviderError, match="yet") as raised:
        await provider.open_recording(ref_of(order, result.reference), None)
    assert not isinstance(raised.value, RecordingUnavailable)


async def test_a_recording_that_never_comes(provider: Plivo, fake: FakePlivo) -> None:
    order = replace(new_order(CUSTOMER, AGENT), record=False)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    ref = ref_of(order, result.reference)
    for minutes, unavailable in ((9, False), (2, True)):
        fake.calls[0].call.placed -= timedelta(minutes=minutes)
        with pytest.raises(ProviderError) as raised:
            await provider.open_recording(ref, None)
        assert isinstance(raised.value, RecordingUnavailable) == unavailable


async def test_the_agents_channel(kind: str, url: str, fake: FakePlivo) -> None:
    provider = adapter(kind, url, fake, agent_channel="2")
    order = new_order(CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while fake.calls[0].call.legs()[0].ended is None:
            await asyncio.sleep(0.02)
    recording = await provider.open_recording(ref_of(order, result.reference), None)
    assert recording.agent_channel == 2
    assert [len(chunk) async for chunk in recording.chunks]
    await provider.aclose()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"auth_id": "MA/.."}, "auth_id"),
        ({"auth_token": None}, "auth_token"),
        ({"caller_id": "0123"}, "caller_id: must be a telephone number"),
        ({"agent_channel": "3"}, "agent_channel"),
        ({"announcement": "hello.mp3"}, "announcement"),
    ],
)
def test_options_that_cannot_be_used(kind: str, values: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        adapter(kind, "https://api.plivo.com", **values)


async def test_what_the_check_finds(kind: str, url: str, fake: FakePlivo) -> None:
    unknown = adapter(kind, url, caller_id="+14155550188")
    findings = {finding.what: finding.ok async for finding in unknown.check()}
    numbers = {"caller ID": False} if kind == "plivo" else {}  # Vobiz does not tell whose a number is
    assert findings == {"account": True, **numbers, "public address": True}
    refused = adapter(kind, url, auth_token="wrong")
    (finding,) = [finding async for finding in refused.check()]
    assert not finding.ok
    assert "auth_token" in finding.fix
    for made in (unknown, refused):
        await made.aclose()


@pytest.mark.parametrize("kind", ["plivo"])
async def test_plivos_own_client_finds_our_call_at_the_fake(provider: Plivo, fake: FakePlivo, url: str) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while (child := fake.calls[0].call.legs()[1]) is None or child.answered is None:
            await asyncio.sleep(0.02)

    theirs = plivo.RestClient(AUTH_ID, AUTH_TOKEN)
    really_send = theirs.session.send

    def send(request: Any, **more: Any) -> Any:
        request.url = request.url.replace("https://api.plivo.com", url)
        return really_send(request, **more)

    theirs.session.send = send

    def look() -> tuple[Any, ...]:
        live = theirs.calls.live_call_get(result.reference)
        theirs.calls.delete(result.reference)
        (leg,) = theirs.calls.list(parent_call_uuid=result.reference)
        (recording,) = theirs.recordings.list(call_uuid=result.reference)
        return live.call_status, leg.to_number, recording.call_uuid

    assert await asyncio.to_thread(look) == ("in-progress", PATIENT_CUSTOMER, result.reference)


@pytest.mark.parametrize("kind", ["vobiz"])
async def test_vobizs_own_client_finds_our_call_at_the_fake(provider: Plivo, fake: FakePlivo, url: str) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while (child := fake.calls[0].call.legs()[1]) is None or child.answered is None:
            await asyncio.sleep(0.02)
    theirs = vobiz.RestClient(AUTH_ID, AUTH_TOKEN)
    theirs.base_uri = f"{url}/api/v1/Account"

    def look() -> tuple[Any, ...]:
        live = theirs.calls.get_live(result.reference)
        theirs.calls.hangup(result.reference)
        return live.call_status, theirs.recordings.list(call_uuid=result.reference)

    status, recordings = await asyncio.to_thread(look)
    assert status == "in-progress"
    assert result.reference in str(recordings)


@pytest.mark.parametrize("address", ["https://calls.example.com/n?b=2&a=1", "https://calls.example.com/n"])
@pytest.mark.parametrize("form", [{"Event": "Hangup", "CallUUID": "1"}, {}])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_signatures_are_the_providers(kind: str, address: str, form: dict[str, str], method: str) -> None:
    theirs: Any = signature_v3 if kind == "plivo" else vobiz_signature_v3
    made = adapter(kind, "http://127.0.0.1:9")
    signed = (
        theirs.construct_get_url(address, dict(form)) if method == "GET" else theirs.construct_post_url(address, form)
    )
    signature = theirs.get_signature_v3(AUTH_TOKEN.encode(), signed.decode(), b"n1").decode()
    assert theirs.validate_v3_signature(method, address, "n1", AUTH_TOKEN, signature, dict(form))
    header = f"x-{kind}-signature-v3"
    headers = {header: f"other,{signature}", f"{header}-nonce": "n1"}
    notification = Notification(address, method, headers, b"", form)
    assert made.is_authentic(notification)
    assert not made.is_authentic(replace(notification, url=address + "x"))
    assert not made.is_authentic(replace(notification, headers={**headers, f"{header}-nonce": "n2"}))
    assert not made.is_authentic(replace(notification, headers={}))
