"""The simulator: a pure function of the order and the time since it was placed."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from app.call_state import TERMINAL, Mover, may_move, may_note
from app.numbers import PhoneNumber
from app.telephony import simulator
from app.telephony.base import Accepted, CallOrder, CallRef, CallStatus, RecordingUnavailable, Unknown
from app.telephony.simulator import Simulator, timeline

PLACED = datetime(2026, 3, 5, 10, tzinfo=UTC)
call_ids = st.from_regex(r"call_[0-9a-z]{16}", fullmatch=True)


def order(
    customer: str = "919999999999", agent: str = "918888888888", call_id: str = "call_ab12cd34ef56gh78"
) -> CallOrder:
    return CallOrder(call_id, PhoneNumber(customer), PhoneNumber(agent))


@given(call_ids)
def test_an_answered_call_takes_one_and_a_half_to_six_seconds(call_id: str) -> None:
    events = timeline(order(call_id=call_id), PLACED)
    assert events == timeline(order(call_id=call_id), PLACED), "the same order, the same call"
    assert 1.5 <= (events[-1].at - PLACED).total_seconds() <= 6
    assert [event.key for event in events] == [
        "agent:ringing",
        "agent:answered",
        "customer:ringing",
        "answered",
        "ended",
    ]
    assert events[-1].has_recording


@pytest.mark.parametrize("customer", [f"1500555000{digit}" for digit in range(1, 8)])
@pytest.mark.parametrize("agent", ["918888888888", "15005550011", "15005550012"])
def test_every_sandbox_call_makes_only_legal_moves(customer: str, agent: str) -> None:
    status = CallStatus.DIALING
    events = timeline(order(customer, agent), PLACED)
    for event in events:
        assert may_move(status, event.status, Mover.EVENT) or may_note(status, event.status)
        status = event.status
    assert status in TERMINAL or (customer == "15005550007" and not events)
    assert [event.at for event in events] == sorted(event.at for event in events)


@pytest.mark.parametrize(
    ("customer", "agent", "status", "cause"),
    [
        ("15005550001", "918888888888", CallStatus.BUSY, "user_busy"),
        ("15005550002", "918888888888", CallStatus.NO_ANSWER, "no_answer"),
        ("15005550003", "918888888888", CallStatus.NO_ANSWER, "call_rejected"),
        ("15005550004", "918888888888", CallStatus.FAILED, "unallocated_number"),
        ("15005550005", "918888888888", CallStatus.COMPLETED, "normal_clearing"),
        ("15005550006", "918888888888", CallStatus.COMPLETED, "normal_clearing"),
        ("919999999999", "15005550011", CallStatus.NO_ANSWER, "no_answer"),
        ("919999999999", "15005550012", CallStatus.BUSY, "user_busy"),
        ("15005550001", "15005550011", CallStatus.NO_ANSWER, "no_answer"),
    ],
)
def test_magic_numbers(customer: str, agent: str, status: CallStatus, cause: str) -> None:
    last = timeline(order(customer, agent), PLACED)[-1]
    assert (last.status, last.hangup_cause) == (status, cause)
    assert last.has_recording == (status is CallStatus.COMPLETED)


def test_speed_scales_time() -> None:
    usual, fast = timeline(order(), PLACED), timeline(order(), PLACED, speed=10)
    for slow_event, fast_event in zip(usual, fast, strict=True):
        assert (fast_event.at - PLACED) * 10 - (slow_event.at - PLACED) < timedelta(milliseconds=1)


@given(call_ids)
def test_conversations_are_chosen_by_the_call(call_id: str) -> None:
    chosen = simulator.conversation(order(call_id=call_id))
    assert chosen.is_file()
    assert chosen.stem not in ("silence", "voicemail")
    assert simulator.conversation(order("15005550005", call_id=call_id)).stem == "silence"


def test_there_are_enough_conversations_and_they_are_small() -> None:
    recordings = list(simulator.CONVERSATIONS.glob("*.wav"))
    assert len([path for path in recordings if path.stem not in ("silence", "voicemail")]) >= 4
    assert sum(path.stat().st_size for path in recordings) < 3_000_000


async def test_it_survives_a_restart_and_keeps_a_ledger(tmp_path: Path) -> None:
    ref = CallRef("call_ab12cd34ef56gh78", None)
    before = Simulator(tmp_path, speed=1000)
    assert await before.fetch(ref) is None
    assert await before.place(order()) == Accepted("sim_ab12cd34ef56gh78")
    after = Simulator(tmp_path, speed=1000)
    while not (snapshot := await after.fetch(ref)) or snapshot.check_after is not None:
        pass
    assert snapshot.events[-1].status == CallStatus.COMPLETED
    recording = await after.open_recording(ref, None)
    assert b"".join([chunk async for chunk in recording.chunks])[:4] == b"RIFF"
    await after.place(order())
    (ledger,) = tmp_path.rglob("*.jsonl")
    assert ledger.read_text().count('"place"') == 2, "a second order is a second line: it would have been dialed"
    assert order().customer_number.digits not in ledger.read_text(), "it outlives users who are erased"


async def test_hangup_cuts_it_short(tmp_path: Path) -> None:
    provider = Simulator(tmp_path, speed=0.001)
    ref = CallRef("call_ab12cd34ef56gh78", None)
    await provider.hangup(ref)
    await provider.place(order())
    await provider.hangup(ref)
    snapshot = await provider.fetch(ref)
    assert snapshot
    assert [event.status for event in snapshot.events] == [CallStatus.CANCELED]
    with pytest.raises(RecordingUnavailable):
        await provider.open_recording(ref, None)


def seconds_of(wav: bytes) -> float:
    """Read by another reader than the simulator's."""
    with soundfile.SoundFile(io.BytesIO(wav)) as file:
        return float(len(file) / file.samplerate)


@pytest.mark.parametrize("customer", ["919999999999", "15005550005", "15005550006"])
async def test_the_talk_is_as_long_as_its_recording(tmp_path: Path, customer: str) -> None:
    provider, ref = Simulator(tmp_path, speed=10_000), CallRef("call_ab12cd34ef56gh78", None)
    await provider.place(order(customer))
    while not (snapshot := await provider.fetch(ref)) or snapshot.check_after is not None:
        pass
    wav = b"".join([chunk async for chunk in (await provider.open_recording(ref, None)).chunks])
    assert snapshot.events[-1].talk_seconds == pytest.approx(seconds_of(wav), abs=0.01)


async def test_so_is_one_that_was_hung_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, ref = Simulator(tmp_path), CallRef("call_ab12cd34ef56gh78", None)
    await provider.place(order())
    (answered, ended) = timeline(order(), datetime.now(UTC))[-2:]
    monkeypatch.setattr(simulator, "_now", lambda: answered.at + (ended.at - answered.at) / 4)
    await provider.hangup(ref)
    snapshot = await provider.fetch(ref)
    assert snapshot
    assert snapshot.events[-1].status == CallStatus.COMPLETED
    wav = b"".join([chunk async for chunk in (await provider.open_recording(ref, None)).chunks])
    assert snapshot.events[-1].talk_seconds == pytest.approx(seconds_of(wav), abs=0.01)
    assert seconds_of(wav) == pytest.approx((ended.talk_seconds or 0) / 4, rel=0.1)


@pytest.mark.parametrize("customer", ["15005550001", "8615005550001", "4915005550001"])
def test_magic_numbers_are_what_they_are_in_every_home_country(customer: str) -> None:
    assert timeline(order(customer), PLACED)[-1].status == CallStatus.BUSY


async def test_a_ledger_that_cannot_be_written_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = await Simulator(tmp_path / "file").place(order())
    assert isinstance(result, Unknown)
