"""A provider that dials nobody: the sandbox. Also used to test the engine.

A simulated call is a pure function of its order and the time since it was placed, so it survives every restart. The
simulator keeps only a ledger: one small file per order, with one line per request. Like a real provider, it would
dial twice if it were asked twice, and the ledger would show it.

Magic numbers, like a payment sandbox's test cards:

    customer 15005550001  busy                 customer 15005550005  answered, but silent
    customer 15005550002  no answer            customer 15005550006  voicemail
    customer 15005550003  rejects the call     customer 15005550007  the provider never reports
    customer 15005550004  not in service
    agent    15005550011  no answer            agent    15005550012  busy

Every other number answers, and talks one of the recorded `conversations/`.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.numbers import Callee, PhoneNumber
from app.options import Options
from app.telephony.base import (
    Accepted,
    AdapterContext,
    CallEvent,
    CallOrder,
    CallRef,
    CallStatus,
    Capabilities,
    Finding,
    Leg,
    PlaceResult,
    ProviderError,
    Recording,
    RecordingUnavailable,
    Snapshot,
    Talk,
    TelephonyProvider,
    Unknown,
)


class SimulatorOptions(Options):
    """With `RINGBACK_TELEPHONY_PROVIDER=simulator`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_SIMULATOR_")

    speed: float = Field(1.0, gt=0, description="Factor by which calls are shorter than their usual 1.5 to 6 s")
    latency_seconds: float = Field(0, ge=0, description="How long the simulated provider takes to answer a request")


_RATE = 8000
_BYTES_PER_SECOND = 2 * _RATE  # two channels of 8 bits (mu-law)

CONVERSATIONS = Path(__file__).parent / "conversations"
SILENCE = "silence"
VOICEMAIL = "voicemail"


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an unanswered leg ends, and how many seconds after it began to ring."""

    status: CallStatus
    hangup_cause: str
    detail: str
    after: float


_CUSTOMERS = {
    "15005550001": _Ending(CallStatus.BUSY, "user_busy", "The customer's line is busy", 0.6),
    "15005550002": _Ending(CallStatus.NO_ANSWER, "no_answer", "The customer did not answer", 2.5),
    "15005550003": _Ending(CallStatus.NO_ANSWER, "call_rejected", "The customer rejected the call", 1.0),
    "15005550004": _Ending(CallStatus.FAILED, "unallocated_number", "The customer's number is not in service", 0.4),
}
_AGENTS = {
    "15005550011": _Ending(CallStatus.NO_ANSWER, "no_answer", "The agent did not answer", 2.5),
    "15005550012": _Ending(CallStatus.BUSY, "user_busy", "The agent's line is busy", 0.6),
}
_NEVER_REPORTS = "15005550007"
_SPOKEN = {"15005550005": SILENCE, "15005550006": VOICEMAIL}
_MAGIC = {*_CUSTOMERS, *_AGENTS, *_SPOKEN, _NEVER_REPORTS}
_MAGIC_DIGITS = 11


@dataclass(frozen=True, slots=True)
class _LedgerLine:
    """One request that reached the provider. The first `place` makes the call. A second one would make a second
    call."""

    request: str
    at: str
    call_id: str
    customer_number: str = ""
    agent_number: str = ""
    provider: str = ""


def timeline(order: CallOrder, placed_at: datetime, *, speed: float = 1.0) -> tuple[CallEvent, ...]:
    """Every event of a call, in order. Pure. At speed 1, the call ends 1.5 to 6 s after it was placed."""
    events: list[CallEvent] = []
    elapsed = 0.0
    agent, customer = _magic_of(order.agent_number), _magic_of(order.customer_number)
    if customer == _NEVER_REPORTS:
        return ()

    def add(after: float, key: str, status: CallStatus, **more: Any) -> None:
        nonlocal elapsed
        elapsed += after
        events.append(CallEvent(key, status, placed_at + timedelta(seconds=elapsed / speed), **more))

    def end(leg: Leg, ending: _Ending) -> tuple[CallEvent, ...]:
        add(
            ending.after,
            "ended",
            ending.status,
            leg=leg,
            hangup_cause=ending.hangup_cause,
            detail=ending.detail,
        )
        return tuple(events)

    add(_between(order, "agent rings", 0.15, 0.35), "agent:ringing", CallStatus.RINGING, leg=Leg.AGENT)
    if ending := _AGENTS.get(agent):
        return end(Leg.AGENT, ending)
    add(_between(order, "agent answers", 0.4, 1.0), "agent:answered", CallStatus.RINGING, leg=Leg.AGENT)
    add(
        _between(order, "customer rings", 0.15, 0.35),
        "customer:ringing",
        CallStatus.RINGING,
        leg=Leg.CUSTOMER,
    )
    if ending := _CUSTOMERS.get(customer):
        return end(Leg.CUSTOMER, ending)
    add(_between(order, "customer answers", 0.4, 1.3), "answered", CallStatus.IN_PROGRESS, leg=Leg.CUSTOMER)
    leaver = Leg.CUSTOMER if _between(order, "who leaves", 0, 1) < 0.5 else Leg.AGENT
    add(
        _between(order, "talk", 0.6, 2.8),
        "ended",
        CallStatus.COMPLETED,
        leg=leaver,
        hangup_cause="normal_clearing",
        ended_by=leaver,
        has_recording=True,
        talk_seconds=_length(conversation(order)),
    )
    return tuple(events)


def conversation(order: CallOrder) -> Path:
    """The recording of the call. Pure: a call always has the same one."""
    if name := _SPOKEN.get(_magic_of(order.customer_number)):
        return CONVERSATIONS / f"{name}.wav"
    spoken = sorted(path for path in CONVERSATIONS.glob("*.wav") if path.stem not in _SPOKEN.values())
    return spoken[int(_between(order, "conversation", 0, len(spoken)))]


def _between(order: CallOrder, what: str, low: float, high: float) -> float:
    """A number in [low, high) that differs between calls and is fixed for one call."""
    digest = hashlib.sha256(f"{order.call_id} {what}".encode()).digest()
    return low + (high - low) * int.from_bytes(digest[:6]) / 2**48


class Simulator(TelephonyProvider):
    """The adapter. `folder` holds the ledger, whose lines have the provider's `name`. `speed` is the factor by which
    calls are shorter. Every request takes `latency` seconds, half of them before it arrives."""

    kind = "simulator"
    options = SimulatorOptions
    capabilities = Capabilities(
        hangup=True,
        discard_recording=True,
        simulated=True,
        sandbox_prefixes=("1500555",),
        poll_seconds=0.25,
        extension_refusal=None,
    )

    def __init__(self, folder: Path, *, speed: float = 1.0, latency: float = 0.0, name: str = "") -> None:
        self._folder = folder
        self._name = name
        self._speed = speed
        self._latency = latency

    @classmethod
    def make(cls, options: SimulatorOptions, context: AdapterContext) -> Self:
        return cls(
            context.data_dir / "simulator",
            speed=options.speed,
            latency=options.latency_seconds,
            name=context.provider,
        )

    async def place(self, order: CallOrder) -> PlaceResult:
        """Never rejects. A simulated call fails later, as most real ones do."""
        numbers = (_magic_of(order.customer_number), _magic_of(order.agent_number))
        line = _LedgerLine("place", _now().isoformat(), order.call_id, *numbers, self._name)
        await asyncio.sleep(self._latency / 2)
        try:
            await asyncio.to_thread(self._append, line)
        except OSError as error:
            return Unknown(f"The simulator cannot write its ledger {self._folder}: {error.strerror}")
        await asyncio.sleep(self._latency / 2)
        return Accepted(f"sim_{order.call_id.removeprefix('call_')}")

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        await asyncio.sleep(self._latency)
        ledger = await asyncio.to_thread(self._read, ref.call_id)
        if not ledger:
            return None
        events = self._events(ledger)
        now = _now()
        happened = tuple(event for event in events if event.at <= now)
        coming = events[len(happened) :]
        return Snapshot(happened, check_after=(coming[0].at - now).total_seconds() if coming else None)

    async def hangup(self, ref: CallRef) -> None:
        ledger = await asyncio.to_thread(self._read, ref.call_id)
        events = self._events(ledger) if ledger else ()
        if ledger and (not events or _now() < events[-1].at):
            await asyncio.to_thread(self._append, _LedgerLine("hangup", _now().isoformat(), ref.call_id))

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        ledger = await asyncio.to_thread(self._read, ref.call_id)
        ended = self._events(ledger)[-1:] if ledger else ()
        if not ended or not ended[0].has_recording:
            raise RecordingUnavailable("The simulator has no recording of this call")
        order, _ = _placed(ledger)
        return Recording("audio/wav", _read_file(conversation(order), ended[0].talk_seconds or 0.0))

    async def check(self) -> AsyncIterator[Finding]:
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            yield Finding(
                "ledger", ok=False, seen=str(error), fix="Make RINGBACK_DATA_DIR a folder that can be written"
            )
            return
        yield Finding("ledger", ok=True, seen=str(self._folder))
        yield Finding(
            "calls", ok=True, seen="simulated: no telephone rings. Set RINGBACK_TELEPHONY_PROVIDER to make real calls"
        )

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _events(self, ledger: list[_LedgerLine]) -> tuple[CallEvent, ...]:
        order, placed_at = _placed(ledger)
        events = timeline(order, placed_at, speed=self._speed)
        hangup = next((datetime.fromisoformat(line.at) for line in ledger if line.request == "hangup"), None)
        if hangup is None or not events or hangup >= events[-1].at:
            return events
        before = tuple(event for event in events if event.at <= hangup)
        answered = any(event.status == CallStatus.IN_PROGRESS for event in before)
        talk = events[-1].at - before[-1].at if answered else timedelta()
        ended = CallEvent(
            "ended",
            CallStatus.COMPLETED if answered else CallStatus.CANCELED,
            hangup,
            hangup_cause="normal_clearing" if answered else "originator_cancel",
            has_recording=answered,
            talk_seconds=(events[-1].talk_seconds or 0.0) * ((hangup - before[-1].at) / talk) if answered else None,
        )
        return (*before, ended)

    def _append(self, line: _LedgerLine) -> None:
        path = self._path(line.call_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:  # O_APPEND: lines stay whole, even if another process writes
            file.write(json.dumps(asdict(line)) + "\n")

    def _read(self, call_id: str) -> list[_LedgerLine]:
        try:
            lines = self._path(call_id).read_text().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ProviderError(f"The simulator cannot read its ledger {self._folder}: {error.strerror}") from error
        return [_LedgerLine(**json.loads(line)) for line in lines]

    def _path(self, call_id: str) -> Path:
        return self._folder / call_id[-2:] / f"{call_id}.jsonl"


def _magic_of(callee: Callee) -> str:
    """The magic number that this number is, in any home country, or an empty string. The ledger outlives its calls, and
    the calls of an erased user, so it keeps no other number."""
    last = callee.digits[-_MAGIC_DIGITS:]
    return last if last in _MAGIC else ""


def _placed(ledger: list[_LedgerLine]) -> tuple[CallOrder, datetime]:
    line = ledger[0]
    numbers = PhoneNumber(line.customer_number), PhoneNumber(line.agent_number)
    return CallOrder(line.call_id, *numbers), datetime.fromisoformat(line.at)


@lru_cache
def _length(path: Path) -> float:
    """The length of one of our recordings, in seconds."""
    wav = path.read_bytes()
    return (len(wav) - _data_offset(wav)) / _BYTES_PER_SECOND


def _data_offset(wav: bytes) -> int:
    return wav.index(b"data") + 8


async def _read_file(path: Path, seconds: float) -> AsyncIterator[bytes]:
    """The recording of a talk: its first `seconds`, because somebody may hang up before it ends."""
    wav = await asyncio.to_thread(path.read_bytes)
    offset = _data_offset(wav)
    frames = min(round(seconds * _RATE), (len(wav) - offset) // 2)
    head = bytearray(wav[:offset])
    head[4:8] = (offset - 8 + 2 * frames).to_bytes(4, "little")
    head[-4:] = (2 * frames).to_bytes(4, "little")
    fact = wav.index(b"fact") + 8
    head[fact : fact + 4] = frames.to_bytes(4, "little")
    yield bytes(head) + wav[offset : offset + 2 * frames]


def _now() -> datetime:
    return datetime.now(UTC)
