"""The adapter of Plivo and Vobiz under the contract of all adapters. Its servers are fakes. Plivo's own client confirms
the shape of one, and both providers' own validators the signatures."""

import asyncio
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

from app.telephony.base import (
    Accepted,
    CallOrder,
    CallRef,
    CallStatus,
    Notification,
    PlaceResult,
    ProviderError,
    RecordingUnavailable,
    Rejected,
    Unknown,
)
from app.telephony.plivo import Plivo, PlivoOptions, Vobiz, VobizOptions
from tests.integration.fake_plivo import AUTH_ID, AUTH_TOKEN, FakePlivo
from tests.integration.two_leg_calls import (
    AGENT,
    CALLER_ID,
    CUSTOMER,
    ENDINGS,
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
