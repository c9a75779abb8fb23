"""The Exotel adapter on a fake Exotel: the contract of all adapters, what can go wrong, and other people's clients."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyexotel  # type: ignore[import-untyped]
import pytest

from app.numbers import PhoneNumber
from app.options import SettingsError
from app.telephony.base import (
    CUSTOMER_DIALED,
    Accepted,
    AdapterContext,
    CallOrder,
    CallRef,
    CallStatus,
    Leg,
    Notification,
    ProviderError,
    RecordingUnavailable,
    Rejected,
    Unknown,
)
from app.telephony.exotel import Exotel, ExotelOptions
from tests.fake_exotel import (
    AGENT,
    BUSY,
    CUSTOMER,
    EXOPHONE,
    KEY,
    NEVER,
    PATIENT_CUSTOMER,
    SID,
    TOKEN,
    UNREACHABLE,
    FakeExotel,
)
from tests.provider_contract import ExpectedEnding, Following, ProviderContract, Stage, new_order


def make(url: str, *, longest_ring_seconds: float = 45, **changed: Any) -> Exotel:
    values = {"account_sid": SID, "api_key": KEY, "api_token": TOKEN, "url": url, "caller_id": EXOPHONE}
    context = AdapterContext("a-test", "a-test", Path(), "IN", longest_ring_seconds)
    return Exotel.make(ExotelOptions.from_values({**values, **changed}), context)


@pytest.fixture
async def fake() -> AsyncIterator[FakeExotel]:
    async with FakeExotel().running() as running:
        yield running


@pytest.fixture
async def exotel(fake: FakeExotel) -> AsyncIterator[Exotel]:
    provider = make(fake.url)
    yield provider
    await provider.aclose()


@pytest.fixture(params=["call details", "call legs"])
async def stage(request: pytest.FixtureRequest, fake: FakeExotel) -> AsyncIterator[Stage]:
    provider = make(fake.url, legs_url=fake.url if request.param == "call legs" else None)
    yield Stage(
        provider=provider,
        away=lambda: make("http://127.0.0.1:9"),
        customer=CUSTOMER,
        patient_customer=PATIENT_CUSTOMER,
        agent=AGENT,
        endings=(
            ExpectedEnding(BUSY, AGENT, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
            ExpectedEnding(NEVER, AGENT, CallStatus.NO_ANSWER, "no_answer", Leg.CUSTOMER),
            ExpectedEnding(CUSTOMER, NEVER, CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
            ExpectedEnding(CUSTOMER, UNREACHABLE, CallStatus.FAILED, "normal_temporary_failure", Leg.AGENT),
        ),
    )
    await provider.aclose()


class TestExotel(ProviderContract):
    """Two ways to learn of the legs: at the end, and while they ring."""


def order(customer: str = CUSTOMER, agent: str = AGENT, **changed: Any) -> CallOrder:
    return CallOrder("call_0123456789abcdef", PhoneNumber(customer), PhoneNumber(agent), **changed)


def lost(placed: CallOrder, **changed: Any) -> CallRef:
    """A call whose order was not answered."""
    values = {"caller_id": placed.caller_id, "dialed_at": datetime.now(UTC) - timedelta(seconds=1), **changed}
    return CallRef(placed.call_id, None, placed.customer_number, placed.agent_number, **values)


async def ended(fake: FakeExotel) -> None:
    """Wait until every call has ended."""
    async with asyncio.timeout(30):
        while any(call.ended_at is None for call in fake.calls.values()):
            await asyncio.sleep(0.02)


# Orders


async def test_an_order_says_everything(fake: FakeExotel, exotel: Exotel) -> None:
    placed = order(
        caller_id=PhoneNumber(EXOPHONE),
        agent_ring_seconds=20,
        customer_ring_seconds=40.5,
        max_call_seconds=1800,
        notify_url="https://calls.example.com/notify/secret?call=1",
    )
    assert isinstance(await exotel.place(placed), Accepted)
    (call,) = fake.calls.values()
    assert call.form == {
        "From": f"+{AGENT}",
        "To": f"+{CUSTOMER}",
        "CallerId": f"+{EXOPHONE}",
        "CallType": "trans",
        "TimeLimit": "1800",
        "TimeOut": "41",
        "CustomField": placed.call_id,
        "Record": "true",
        "RecordingChannels": "dual",
        "RecordingFormat": "mp3",
        "StatusCallback": placed.notify_url,
        "StatusCallbackEvents[0]": "terminal",
        "StatusCallbackEvents[1]": "answered",
        "StatusCallbackContentType": "application/json",
    }


async def test_an_order_without_a_recording_at_home_and_too_long(fake: FakeExotel) -> None:
    exotel = make(fake.url, number_format="national")
    assert isinstance(await exotel.place(order(record=False, max_call_seconds=99999)), Accepted)
    await exotel.aclose()
    (call,) = fake.calls.values()
    assert call.form["Record"] == "false"
    assert not [name for name in call.form if name.startswith(("Recording", "StatusCallback"))]
    assert (call.form["From"], call.form["TimeLimit"]) == (f"0{AGENT[2:]}", "14400")


async def test_an_order_needs_a_caller_id(fake: FakeExotel) -> None:
    exotel = make(fake.url, caller_id=None)
    refused = await exotel.place(order())
    await exotel.aclose()
    assert isinstance(refused, Rejected)
    assert "caller_id" in refused.reason
    assert not fake.calls


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "Invalid number", Rejected),
        (401, "Authentication failed", Rejected),
        (402, "Insufficient balance", Rejected),
        (403, "Call to a DND number", Rejected),
        (500, "Something went wrong", Unknown),
        (502, "Bad gateway", Unknown),
        (200, "A body without a call", Unknown),
    ],
)
async def test_what_a_refusal_means(
    fake: FakeExotel, exotel: Exotel, status: int, message: str, expected: type[Rejected | Unknown]
) -> None:
    fake.refuses_with = status, {"RestException": {"Status": status, "Message": message}}, {}
    result = await exotel.place(order())
    assert isinstance(result, expected)
    if isinstance(result, Rejected):
        assert message in result.reason
        assert result.retry_after is None


async def test_too_many_requests(fake: FakeExotel, exotel: Exotel) -> None:
    fake.refuses_with = 429, {"RestException": {"Status": 429, "Message": "Too Many Requests"}}, {"Retry-After": "40"}
    result = await exotel.place(order())
    assert isinstance(result, Rejected)
    assert result.retry_after == 40
    asked = await exotel.fetch(CallRef("call_0123456789abcdef", "a-sid"))
    assert asked is not None
    assert (asked.events, asked.check_after) == ((), 40)


# A lost answer


async def test_a_lost_answer_is_found_among_the_ended_calls(fake: FakeExotel, exotel: Exotel) -> None:
    others = [order(caller_id=None), order(customer=NEVER), order(agent=NEVER)]
    for other in others:
        assert isinstance(await exotel.place(other), Accepted)
    same = next(iter(fake.calls))
    fake.loses_answers = True
    placed = order()
    assert isinstance(await exotel.place(placed), Unknown)
    ref = lost(placed, taken=frozenset({same}))
    waiting = await exotel.fetch(ref)
    assert waiting is not None, "Exotel lists no calls that are up, so nothing says that there is none"
    assert waiting.events == ()
    await ended(fake)
    found = await exotel.fetch(ref)
    assert found is not None
    assert found.reference == list(fake.calls)[-1]
    assert found.events[-1].status == CallStatus.COMPLETED
    assert len(fake.calls) == 4, "an order is never repeated"
    recording = await exotel.open_recording(ref, None)
    assert len(b"".join([chunk async for chunk in recording.chunks])) > 1000


async def test_calls_at_another_time_or_by_another_number_are_not_ours(fake: FakeExotel, exotel: Exotel) -> None:
    await exotel.place(placed := order(customer=NEVER))
    await ended(fake)
    now = datetime.now(UTC)
    for changed in (
        {"dialed_at": now - timedelta(minutes=3)},
        {"dialed_at": now + timedelta(minutes=1)},
        {"caller_id": PhoneNumber("918047199999")},
        {"taken": frozenset(fake.calls)},
    ):
        found = await exotel.fetch(lost(placed, **changed))
        assert found is not None
        assert found.reference is None, changed
    found = await exotel.fetch(lost(placed))
    assert found is not None
    assert found.reference in fake.calls


async def test_the_list_has_pages(fake: FakeExotel, exotel: Exotel) -> None:
    for _ in range(101):
        await exotel.place(order(customer=CUSTOMER, agent=NEVER))
    await exotel.place(placed := order(customer=BUSY))
    await ended(fake)
    found = await exotel.fetch(lost(placed, dialed_at=datetime.now(UTC) - timedelta(seconds=20)))
    assert found is not None
    assert found.reference == list(fake.calls)[-1]


# What happens


async def test_only_the_legs_tell(fake: FakeExotel, exotel: Exotel) -> None:
    """While it is up, a call of Exotel's is in progress. If only the agent answered, it is completed."""
    async with Following(exotel, new_order(NEVER, AGENT)).placed() as call:
        (told,) = fake.calls.values()
        assert told.status == "in-progress"
        end = await call.until_ended()
        assert told.status == "completed"
    assert [event.status for event in call.events] == [CallStatus.NO_ANSWER]
    assert end.detail == "The customer did not answer"


async def test_the_legs_api_tells_who_rings(fake: FakeExotel) -> None:
    exotel = make(fake.url, legs_url=fake.url)
    async with Following(exotel, new_order(CUSTOMER, AGENT)).placed() as call:
        await call.until_ended()
    await exotel.aclose()
    assert [event.key for event in call.events] == [
        "agent:ringing",
        "agent:answered",
        CUSTOMER_DIALED,
        "answered",
        "ended",
    ]


async def test_the_end_tells_how_long_both_talked(fake: FakeExotel, exotel: Exotel) -> None:
    ref = await answered(fake, exotel)
    call = fake.calls[str(ref.reference)]
    assert call.ended_at
    call.created_at, call.joined_at = (call.ended_at - timedelta(seconds=seconds) for seconds in (75, 60))
    found = await exotel.fetch(ref)
    assert found is not None
    answer, end = found.events
    assert (end.at - answer.at).total_seconds() == end.talk_seconds == 60
    assert end.at == call.ended_at.replace(microsecond=0)


async def test_a_call_up_for_longer_than_both_legs_can_ring_was_answered(fake: FakeExotel) -> None:
    exotel = make(fake.url, longest_ring_seconds=30)
    accepted = await exotel.place(order(customer=PATIENT_CUSTOMER))
    assert isinstance(accepted, Accepted)
    now = datetime.now(UTC)
    young = await exotel.fetch(CallRef("call_0", accepted.reference, dialed_at=now - timedelta(seconds=75)))
    old = await exotel.fetch(CallRef("call_0", accepted.reference, dialed_at=now - timedelta(seconds=130)))
    await exotel.aclose()
    assert young is not None
    assert old is not None
    assert (young.events, young.check_after) == ((), 10)
    assert [(event.status, event.late) for event in old.events] == [(CallStatus.IN_PROGRESS, True)]
    assert old.check_after == 30


async def test_the_end_waits_for_its_details(fake: FakeExotel, exotel: Exotel) -> None:
    accepted = await exotel.place(order(customer=BUSY))
    assert isinstance(accepted, Accepted)
    await ended(fake)
    fake.is_settled = False
    ref = CallRef("call_0", accepted.reference)
    early = await exotel.fetch(ref)
    assert early is not None
    assert early.events == ()
    call = fake.calls[accepted.reference]
    call.created_at = call.created_at - timedelta(minutes=5)
    call.ended_at = datetime.now(UTC) - timedelta(minutes=4)
    late = await exotel.fetch(ref)
    assert late is not None
    assert [(event.status, event.late) for event in late.events] == [(CallStatus.ENDED, True)]


async def test_a_time_that_cannot_be_is_not_believed(fake: FakeExotel) -> None:
    exotel = make(fake.url, timezone="America/New_York")
    accepted = await exotel.place(order(customer=BUSY))
    assert isinstance(accepted, Accepted)
    await ended(fake)
    found = await exotel.fetch(CallRef("call_0", accepted.reference))
    await exotel.aclose()
    assert found is not None
    (end,) = found.events
    assert end.late
    assert abs(end.at - datetime.now(UTC)) < timedelta(seconds=10)


async def test_an_unknown_word_keeps_the_status(
    fake: FakeExotel, exotel: Exotel, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = await exotel.place(order(customer=BUSY))
    assert isinstance(accepted, Accepted)
    await ended(fake)
    fake.status_word = "parked"
    for _ in range(2):
        found = await exotel.fetch(CallRef("call_0", accepted.reference))
        assert found is not None
        assert found.events == ()
    assert [record.message for record in caplog.records if "parked" in record.message] == [
        "Exotel: unknown status of a call 'parked'. The call keeps its status until another comes"
    ]


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_a_provider_that_cannot_be_asked(fake: FakeExotel, exotel: Exotel, status: int) -> None:
    fake.refuses_with = status, {"RestException": {"Status": status, "Message": "No"}}, {}
    for ref in (CallRef("call_0", "a-sid"), lost(order())):
        with pytest.raises(ProviderError):
            await exotel.fetch(ref)


# Recordings


async def answered(fake: FakeExotel, exotel: Exotel) -> CallRef:
    accepted = await exotel.place(order())
    assert isinstance(accepted, Accepted)
    await ended(fake)
    return CallRef("call_0", accepted.reference)


async def test_a_recording_comes_later(fake: FakeExotel, exotel: Exotel) -> None:
    ref = await answered(fake, exotel)
    fake.has_recordings = False
    with pytest.raises(ProviderError, match="yet") as caught:
        await exotel.open_recording(ref, None)
    assert not isinstance(caught.value, RecordingUnavailable)
    fake.has_recordings = True
    recording = await exotel.open_recording(ref, None)
    assert (recording.content_type, recording.agent_channel) == ("audio/mpeg", 1)
    assert b"".join([chunk async for chunk in recording.chunks]) == fake.calls[str(ref.reference)].recording
    assert fake.leaked_credentials == 0


async def test_a_recording_that_never_came(fake: FakeExotel, exotel: Exotel) -> None:
    ref = await answered(fake, exotel)
    fake.has_recordings = False
    call = fake.calls[str(ref.reference)]
    call.created_at, call.ended_at = (datetime.now(UTC) - timedelta(minutes=minutes) for minutes in (50, 46))
    with pytest.raises(RecordingUnavailable):
        await exotel.open_recording(ref, None)


async def test_nobody_talked_so_nothing_is_recorded(fake: FakeExotel, exotel: Exotel) -> None:
    accepted = await exotel.place(order(customer=NEVER))
    assert isinstance(accepted, Accepted)
    await ended(fake)
    with pytest.raises(RecordingUnavailable):
        await exotel.open_recording(CallRef("call_0", accepted.reference), None)


async def test_a_link_that_has_expired_is_asked_for_again(fake: FakeExotel, exotel: Exotel) -> None:
    ref = await answered(fake, exotel)
    fake.forgets_links = True
    with pytest.raises(ProviderError) as caught:
        await exotel.open_recording(ref, None)
    assert not isinstance(caught.value, RecordingUnavailable)
    fake.forgets_links = False
    assert await exotel.open_recording(ref, None)


async def test_a_recording_of_exotels_own_host_gets_the_credentials(fake: FakeExotel) -> None:
    fake.signs_links = False
    exotel = make(fake.url, agent_channel="2")
    recording = await exotel.open_recording(await answered(fake, exotel), None)
    assert recording.agent_channel == 2
    assert len(b"".join([chunk async for chunk in recording.chunks])) > 1000
    await exotel.aclose()


# Options and check


@pytest.mark.parametrize(
    ("option", "value"),
    [("timezone", "Bombay"), ("number_format", "digits"), ("agent_channel", "3"), ("account_sid", "a/b")],
)
def test_an_option_that_is_wrong_is_named(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{option}: "):
        make("https://api.exotel.com", **dict[str, Any]({option: value}))


def test_a_caller_id_is_a_number() -> None:
    with pytest.raises(SettingsError, match=r"^caller_id: must be a telephone number"):
        make("https://api.exotel.com", caller_id="sales")


@pytest.mark.parametrize(
    ("changed", "balance", "wrong"),
    [
        ({}, "10", []),
        ({"api_token": "another"}, "10", ["credentials"]),
        ({"account_sid": "another"}, "10", ["credentials"]),
        ({"caller_id": "918047199999"}, "10", ["ExoPhones"]),
        ({}, "0.00", ["balance"]),
        ({"legs_url": "fake"}, "10", ["call legs"]),
    ],
)
async def test_the_check_names_what_is_wrong(
    fake: FakeExotel, changed: dict[str, str], balance: str, wrong: list[str]
) -> None:
    fake.balance = balance
    fake.has_legs = False
    options: dict[str, Any] = {name: fake.url if value == "fake" else value for name, value in changed.items()}
    exotel = make(fake.url, **options)
    findings = [finding async for finding in exotel.check()]
    await exotel.aclose()
    assert [finding.what for finding in findings if not finding.ok] == wrong
    assert all(finding.fix for finding in findings if not finding.ok)
    assert not fake.calls


# Other people's clients. Exotel has no official one for Python, so these confirm the shape of the fake.


async def test_pyexotel_calls_and_asks(fake: FakeExotel, exotel: Exotel) -> None:
    client = pyexotel.Exotel(KEY, TOKEN, SID)
    client.call_ep = client.call_ep.replace("https://api.exotel.com", fake.url)
    placed = await asyncio.to_thread(client.call, f"0{AGENT[2:]}", f"0{CUSTOMER[2:]}", f"0{EXOPHONE[2:]}")
    await ended(fake)
    found = await asyncio.to_thread(client.get_call_info, placed["Call"]["Sid"])
    assert found["Call"]["Status"] == "completed"
    snapshot = await exotel.fetch(CallRef("call_0", placed["Call"]["Sid"]))
    assert snapshot is not None
    assert snapshot.events[-1].status == CallStatus.COMPLETED


async def test_exotelpy_lists_exophones_and_understands_refusals(fake: FakeExotel) -> None:
    exotelpy = pytest.importorskip("exotelpy", reason="it is not for this Python")
    client = exotelpy.Exotel(SID, KEY, TOKEN, fake.url)
    listed = await asyncio.to_thread(client.get_all_exophones)
    assert [exophone["phone_number"] for exophone in listed["incoming_phone_numbers"]] == [f"+{EXOPHONE}"]
    fake.refuses_with = 429, {}, {}
    with pytest.raises(exotelpy.exceptions.Throttled):
        await asyncio.to_thread(client.get_all_exophones)


@pytest.mark.parametrize(
    ("body", "reference"),
    [
        (
            b'{"CallSid": "c5797dcbaaeed7678c4062a4a3ed2f8a", "EventType": "answered"}',
            "c5797dcbaaeed7678c4062a4a3ed2f8a",
        ),
        (b'{"CallSid": "../Balance"}', None),
        (b'{"CallSid": null}', None),
        (b'["CallSid"]', None),
        (b"CallSid=c5797dcb", None),
        (b"\xff", None),
    ],
)
def test_the_reference_in_a_notification(body: bytes, reference: str | None) -> None:
    notification = Notification("https://calls.example.com/n", "POST", {}, body, {})
    assert make("https://api.exotel.com").reference_in(notification) == reference
