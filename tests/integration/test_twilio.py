"""Twilio's adapter under the contract of all adapters, and what only hosted providers do: lose answers, be busy.

Its server is a fake. Twilio's own client confirms that the fake has Twilio's shape.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from app.options import SettingsError
from app.telephony.base import (
    Accepted,
    CallOrder,
    CallRef,
    CallStatus,
    Leg,
    Notification,
    ProviderError,
    RecordingUnavailable,
    Rejected,
    Snapshot,
    Unknown,
)
from app.telephony.twilio import Twilio, TwilioOptions
from app.telephony.twilio.events import call_events
from tests.integration.fake_twilio import ACCOUNT, KEY, KEY_SECRET, TOKEN, FakeTwilio
from tests.integration.two_leg_calls import (
    AGENT,
    CALLER_ID,
    CUSTOMER,
    ENDINGS,
    NEVER,
    NOT_IN_SERVICE,
    PATIENT_CUSTOMER,
    adapter_context,
    running,
)
from tests.provider_contract import ProviderContract, Stage, new_order

NOTIFY = "https://calls.example.com/provider/hosted?call=call_1&secret=a%2Fb"


@pytest.fixture
def fake() -> FakeTwilio:
    return FakeTwilio()


@pytest.fixture
async def url(fake: FakeTwilio) -> AsyncIterator[str]:
    async with running(fake.routes()) as url:
        yield url


def adapter(url: str, **more: object) -> Twilio:
    values = {"account_sid": ACCOUNT, "auth_token": TOKEN, "caller_id": f"+{CALLER_ID}", "base_url": url, **more}
    return Twilio.make(TwilioOptions.from_values(values), adapter_context())


@pytest.fixture
async def make(url: str) -> AsyncIterator[Callable[..., Twilio]]:
    made = []

    def one(**more: object) -> Twilio:
        made.append(adapter(url, **more))
        return made[-1]

    yield one
    for provider in made:
        await provider.aclose()


@pytest.fixture
def twilio(make: Callable[..., Twilio]) -> Twilio:
    return make()


class TestTwilio(ProviderContract):
    @pytest.fixture
    def stage(self, make: Callable[..., Twilio]) -> Stage:
        return Stage(
            provider=make(delete_recordings=True),
            away=lambda: adapter("http://127.0.0.1:9"),
            customer=CUSTOMER,
            patient_customer=PATIENT_CUSTOMER,
            agent=AGENT,
            endings=ENDINGS,
        )


def ref_of(order: CallOrder, reference: str | None = None, **more: Any) -> CallRef:
    return CallRef(
        order.call_id,
        reference,
        order.customer_number,
        order.agent_number,
        order.caller_id,
        datetime.now(UTC),
        **more,
    )


async def until_ended(provider: Twilio, ref: CallRef) -> Snapshot:
    async with asyncio.timeout(20):
        while True:
            snapshot = await provider.fetch(ref)
            assert snapshot is not None
            if snapshot.events and snapshot.events[-1].key == "ended":
                return snapshot
            await asyncio.sleep(0.05)


# Orders


async def test_the_whole_order(make: Callable[..., Twilio], fake: FakeTwilio) -> None:
    provider = make(
        announcement="https://sounds.example.com/a.mp3?x=1&y=<2>",
        customer_announcement="https://handler.twilio.com/twiml/EH1",
    )
    order = replace(
        new_order(CUSTOMER, AGENT),
        agent_ring_seconds=20.4,
        customer_ring_seconds=2,
        max_call_seconds=600,
        notify_url=NOTIFY,
    )
    assert isinstance(await provider.place(order), Accepted)
    (call,) = fake.calls
    assert call.form["To"] == f"+{AGENT}"
    assert call.form["From"] == f"+{CALLER_ID}"
    assert call.form["Timeout"] == "21"
    assert call.form["TimeLimit"] == "662"
    assert call.form["StatusCallback"] == NOTIFY
    response = ElementTree.fromstring(call.form["Twiml"])
    play, dial = response
    assert (play.tag, play.text) == ("Play", "https://sounds.example.com/a.mp3?x=1&y=%3C2%3E")
    assert dial.attrib == {
        "timeout": "5",
        "timeLimit": "600",
        "callerId": f"+{CALLER_ID}",
        "record": "record-from-answer-dual",
        "recordingStatusCallback": NOTIFY,
    }
    (number,) = dial
    assert number.text == f"+{CUSTOMER}"
    assert number.attrib["url"] == "https://handler.twilio.com/twiml/EH1"
    assert number.attrib["statusCallback"] == NOTIFY


async def test_an_order_without_a_recording_and_with_its_own_caller_id(twilio: Twilio, fake: FakeTwilio) -> None:
    order = replace(new_order(CUSTOMER, AGENT), record=False, caller_id=replace(CALLER_ID, digits="14155550123"))
    result = await twilio.place(order)
    assert isinstance(result, Accepted)
    assert fake.calls[0].form["From"] == "+14155550123"
    dial = ElementTree.fromstring(fake.calls[0].form["Twiml"]).find("Dial")
    assert dial is not None
    assert "record" not in dial.attrib
    ref = ref_of(order, result.reference)
    await until_ended(twilio, ref)
    with pytest.raises(ProviderError, match="yet") as raised:
        await twilio.open_recording(ref, None)
    assert not isinstance(raised.value, RecordingUnavailable)


async def test_instructions_that_a_copy_asks_for(make: Callable[..., Twilio]) -> None:
    provider = make(inline=False)
    refused = await provider.place(replace(new_order(CUSTOMER, AGENT), instructions_url=None))
    assert isinstance(refused, Rejected)
    assert "public address" in refused.reason
    assert refused.retry_after is None
    found = provider.instructions(new_order(CUSTOMER, AGENT))
    assert found.content_type == "application/xml"
    assert ElementTree.fromstring(found.body).findtext("Dial/Number") == f"+{CUSTOMER}"


@pytest.mark.parametrize(
    ("failure", "reason", "retry_after"),
    [
        ("busy", "Too Many Requests", 7.0),
        ("full", "concurrency", 5.0),
        ("refused", "not a valid phone number. (Twilio's error 21211)", None),
    ],
)
async def test_refusals(twilio: Twilio, fake: FakeTwilio, failure: str, reason: str, retry_after: float | None) -> None:
    fake.failures = [failure]
    result = await twilio.place(new_order(CUSTOMER, AGENT))
    assert isinstance(result, Rejected)
    assert reason in result.reason
    assert result.retry_after == retry_after
    assert not fake.calls


async def test_refused_credentials_and_a_missing_caller_id(make: Callable[..., Twilio], fake: FakeTwilio) -> None:
    refused = await make(auth_token="wrong").place(new_order(CUSTOMER, AGENT))
    assert isinstance(refused, Rejected)
    assert "credentials" in refused.reason
    assert refused.retry_after is None
    with pytest.raises(ProviderError, match="credentials"):
        await make(auth_token="wrong").fetch(CallRef("call_1", "CA1"))
    nameless = await make(caller_id=None).place(new_order(CUSTOMER, AGENT))
    assert isinstance(nameless, Rejected)
    assert "caller_id" in nameless.reason
    assert not fake.calls


# Answers that were lost


@pytest.mark.parametrize("failure", ["lost", "broken"])
async def test_a_lost_answer_is_found_by_its_numbers(twilio: Twilio, fake: FakeTwilio, failure: str) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    fake.failures = [failure]
    assert isinstance(await twilio.place(order), Unknown)
    assert len(fake.calls) == 1, "dialed once"
    ref = ref_of(order)
    found = await twilio.fetch(ref)
    assert found is not None
    assert found.reference == fake.calls[0].sid
    await twilio.hangup(ref)
    assert fake.calls[0].call.hung_up is not None


async def test_whose_call_a_lost_answer_is_not(twilio: Twilio, fake: FakeTwilio) -> None:
    earlier, order = new_order(CUSTOMER, AGENT), new_order(PATIENT_CUSTOMER, AGENT)
    for one in (earlier, order, order):
        assert isinstance(await twilio.place(one), Accepted)
    first, second, third = (call.sid for call in fake.calls)
    async with asyncio.timeout(10):
        while (await twilio.fetch(CallRef("call_1", second))) == Snapshot(()) or fake.calls[2].call.legs()[1] is None:
            await asyncio.sleep(0.02)
    # The first one's customer is somebody else.
    found = await twilio.fetch(ref_of(order))
    assert found is not None
    assert found.reference == second, "the oldest"
    assert first not in (second, third)
    found = await twilio.fetch(ref_of(order, taken=frozenset({second})))
    assert found is not None
    assert found.reference == third
    assert await twilio.fetch(ref_of(order, taken=frozenset({second, third}))) is None
    old = replace(ref_of(order), dialed_at=datetime.now(UTC) - timedelta(minutes=5))
    assert await twilio.fetch(old) is None
    assert await twilio.fetch(replace(ref_of(order), agent_number=order.customer_number)) is None


# States


async def test_the_agents_call_alone_means_nothing(twilio: Twilio, fake: FakeTwilio) -> None:
    """It is `completed` although the customer never answered."""
    order = new_order(NEVER, AGENT)
    result = await twilio.place(order)
    assert isinstance(result, Accepted)
    ended = (await until_ended(twilio, ref_of(order, result.reference))).events[-1]
    parent = await asyncio.to_thread(client(twilio).calls(result.reference).fetch)
    assert parent.status == "completed"
    assert (ended.status, ended.leg) == (CallStatus.NO_ANSWER, Leg.CUSTOMER)


async def test_a_number_that_is_not_in_service(twilio: Twilio) -> None:
    order = new_order(NOT_IN_SERVICE, AGENT)
    result = await twilio.place(order)
    assert isinstance(result, Accepted)
    ended = (await until_ended(twilio, ref_of(order, result.reference))).events[-1]
    assert (ended.status, ended.leg, ended.has_recording) == (CallStatus.FAILED, Leg.CUSTOMER, False)


async def test_an_unknown_word_changes_nothing(
    twilio: Twilio, fake: FakeTwilio, caplog: pytest.LogCaptureFixture
) -> None:
    result = await twilio.place(new_order(PATIENT_CUSTOMER, AGENT))
    assert isinstance(result, Accepted)
    fake.status_word = "levitating"
    with caplog.at_level(logging.WARNING, "ringback"):
        for _ in range(2):
            assert (await twilio.fetch(CallRef("call_1", result.reference))) == Snapshot((), check_after=2.0)
    assert [record.getMessage() for record in caplog.records if "levitating" in record.getMessage()] == [
        "Twilio: unknown status of a call 'levitating'. The call keeps its status until another comes"
    ]


def test_a_call_whose_customer_was_not_dialed() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    agent = {"sid": "CA1", "status": "completed", "end_time": "Thu, 01 Jan 2026 11:59:58 +0000"}
    words: list[object] = []

    def events_at(time: datetime) -> list[Any]:
        return call_events(agent, None, time, lambda what, word: words.append(word))

    assert [event.key for event in events_at(now)] == ["agent:answered"], "the list may lag behind"
    (ended,) = events_at(now + timedelta(seconds=10))
    assert (ended.status, ended.leg) == (CallStatus.FAILED, Leg.CUSTOMER)
    assert not words


def test_an_ended_call_tells_when_it_was_answered() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    customer = {
        "status": "completed",
        "date_created": "Thu, 01 Jan 2026 11:00:00 +0000",
        "start_time": "Thu, 01 Jan 2026 11:00:01 +0000",  # it began to ring
        "end_time": "2026-01-01T11:00:40Z",  # as some copies write it
        "duration": "30",
    }
    events = call_events({"status": "completed"}, customer, now, lambda what, word: None)
    assert [(event.key, event.at.second, event.late) for event in events] == [
        ("agent:answered", 0, False),
        ("answered", 10, False),
        ("ended", 40, False),
    ]
    assert events[-1].talk_seconds == 30


# Recordings


async def test_recordings_that_come_late_or_never(twilio: Twilio, fake: FakeTwilio) -> None:
    order = new_order(CUSTOMER, AGENT)
    result = await twilio.place(order)
    assert isinstance(result, Accepted)
    ref = ref_of(order, result.reference)
    await until_ended(twilio, ref)
    fake.recording_status = "processing"
    with pytest.raises(ProviderError, match="not ready") as raised:
        await twilio.open_recording(ref, None)
    assert not isinstance(raised.value, RecordingUnavailable)
    fake.recording_status = "absent"
    with pytest.raises(RecordingUnavailable):
        await twilio.open_recording(ref, None)
    fake.recording_status, fake.channels = "completed", 1
    recording = await twilio.open_recording(ref, None)
    assert recording.content_type == "audio/x-wav"
    assert b"".join([chunk async for chunk in recording.chunks])[:4] == b"RIFF"
    await twilio.discard_recording(ref)
    assert not fake.deleted, "only with delete_recordings"


async def test_the_agents_channel(make: Callable[..., Twilio]) -> None:
    provider = make(agent_channel="2")
    order = new_order(CUSTOMER, AGENT)
    result = await provider.place(order)
    assert isinstance(result, Accepted)
    ref = ref_of(order, result.reference)
    await until_ended(provider, ref)
    recording = await provider.open_recording(ref, None)
    assert recording.agent_channel == 2
    assert [len(chunk) async for chunk in recording.chunks]


# Options and checks


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"auth_token": None}, "auth_token is not set"),
        ({"api_key": KEY}, "api_key and api_secret belong together"),
        ({"caller_id": "0123"}, "caller_id: must be a telephone number"),
        ({"account_sid": "AC/.."}, "account_sid"),
        ({"agent_channel": 3}, "agent_channel"),
    ],
)
def test_options_that_cannot_be_used(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        adapter("https://api.twilio.com", **values)


async def test_an_api_key_instead_of_the_token(make: Callable[..., Twilio], fake: FakeTwilio) -> None:
    provider = make(auth_token=None, api_key=KEY, api_secret=KEY_SECRET)
    assert isinstance(await provider.place(new_order(CUSTOMER, AGENT)), Accepted)
    findings = [finding async for finding in provider.check()]
    assert [finding.ok for finding in findings] == [True, True, True]
    assert "not checked" in findings[2].seen
    assert provider.is_authentic(Notification(NOTIFY, "POST", {}, b"", {}))


async def test_what_the_check_finds(make: Callable[..., Twilio]) -> None:
    findings = [finding async for finding in make(caller_id="+14155550188").check()]
    assert [(finding.what, finding.ok) for finding in findings] == [
        ("account", True),
        ("caller ID", False),
        ("notifications", True),
    ]
    assert "trial" in findings[0].seen
    assert TOKEN not in str(findings)
    (refused,) = [finding async for finding in make(auth_token="wrong").check()]
    assert not refused.ok
    assert "auth_token" in refused.fix


# Twilio's own client


class _ToFake:
    """Sends the requests of Twilio's client to the fake."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = TwilioHttpClient()

    def request(self, method: str, url: str, *args: Any, **more: Any) -> Any:
        return self._http.request(method, url.replace("https://api.twilio.com", self._url), *args, **more)


def client(provider: Twilio) -> Any:
    return Client(ACCOUNT, TOKEN, http_client=_ToFake(provider._rest.base_url))


async def test_twilios_own_client_finds_our_call_at_the_fake(twilio: Twilio, fake: FakeTwilio) -> None:
    order = new_order(PATIENT_CUSTOMER, AGENT)
    result = await twilio.place(order)
    assert isinstance(result, Accepted)
    async with asyncio.timeout(10):
        while fake.calls[0].call.legs()[1] is None:
            await asyncio.sleep(0.02)
    theirs = client(twilio)

    def look() -> tuple[Any, ...]:
        (child,) = theirs.calls.list(parent_call_sid=result.reference)
        (parent,) = theirs.calls.list(to=f"+{AGENT}", from_=f"+{CALLER_ID}")
        return parent.sid, child.to, theirs.calls(parent.sid).update(status="completed").status

    assert await asyncio.to_thread(look) == (result.reference, f"+{PATIENT_CUSTOMER}", "completed")


async def test_a_call_of_twilios_own_client_is_read_by_the_adapter(twilio: Twilio, fake: FakeTwilio) -> None:
    order = new_order(CUSTOMER, AGENT)
    theirs = client(twilio)
    placed = await asyncio.to_thread(
        theirs.calls.create,
        to=f"+{AGENT}",
        from_=f"+{CALLER_ID}",
        timeout=30,
        twiml=twilio.instructions(order).body,
    )
    ended = (await until_ended(twilio, CallRef(order.call_id, placed.sid))).events[-1]
    assert ended.status == CallStatus.COMPLETED
    (recording,) = await asyncio.to_thread(theirs.calls(placed.sid).recordings.list)
    assert (recording.source, recording.channels) == ("DialVerb", 2)


@pytest.mark.parametrize("url", [NOTIFY, "https://calls.example.com:8443/p?secret=1", "http://10.0.0.1/p"])
def test_signatures_are_twilios(url: str) -> None:
    provider = adapter("https://api.twilio.com")
    form = {"CallSid": "CA1", "CallStatus": "completed", "To": "+911000000001", "Empty": ""}
    sign = RequestValidator(TOKEN).compute_signature
    ours = Notification(url, "POST", {"x-twilio-signature": sign(url, form)}, b"", form)
    assert provider.is_authentic(ours)
    assert not provider.is_authentic(replace(ours, url=url + "1"))
    assert not provider.is_authentic(replace(ours, form={**form, "CallStatus": "busy"}))
    assert not provider.is_authentic(replace(ours, headers={}))
    assert not provider.is_authentic(replace(ours, headers={"x-twilio-signature": "é"}))
    with_port = url.replace("example.com/", "example.com:443/").replace("10.0.0.1/", "10.0.0.1:80/")
    assert provider.is_authentic(replace(ours, headers={"x-twilio-signature": sign(with_port, form)}))
    assert adapter("https://space.signalwire.com/api/laml").is_authentic(replace(ours, headers={}))
