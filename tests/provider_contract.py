"""What every telephony adapter must do. An adapter's test subclasses the suite and supplies its `Stage`.

The suite does what a worker does: places, listens or fetches, connects a waiting agent, hangs up, downloads.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import soundfile

from app import call_ids, call_state
from app.numbers import PhoneNumber
from app.telephony.base import (
    Accepted,
    CallEvent,
    CallOrder,
    CallRef,
    CallStatus,
    Finding,
    Leg,
    ProviderError,
    RecordingUnavailable,
    Rejected,
    TelephonyProvider,
    Unknown,
)


@dataclass(frozen=True)
class ExpectedEnding:
    """Two numbers, and how a call between them must end."""

    customer: str
    agent: str
    status: CallStatus
    hangup_cause: str
    leg: Leg


@dataclass(frozen=True)
class Stage:
    """An adapter with a provider behind it."""

    provider: TelephonyProvider
    away: Callable[[], TelephonyProvider]
    """The same adapter, with a provider that cannot be reached."""
    customer: str
    """Answers, and hangs up after some seconds."""
    patient_customer: str
    """Answers, and stays."""
    agent: str
    endings: tuple[ExpectedEnding, ...]
    """Includes one agent who never answers."""


def new_order(customer: str, agent: str) -> CallOrder:
    call_id = call_ids.new_call_id()
    return CallOrder(
        call_id,
        PhoneNumber(customer),
        PhoneNumber(agent),
        agent_ring_seconds=5,
        customer_ring_seconds=5,
        instructions_url=f"https://ringback.example/instructions/{call_id}",
    )


class Following:
    """One call, driven as a worker drives it."""

    def __init__(self, provider: TelephonyProvider, order: CallOrder) -> None:
        self.provider = provider
        self.order = order
        self.ref = CallRef(order.call_id, None)
        self.events: list[CallEvent] = []
        self.connects = True
        self.hang_up_in_the_end = True

    async def until(self, wanted: Callable[[CallEvent], bool]) -> CallEvent:
        """Let the call go on until such an event comes. Fails after 30 s."""
        async with asyncio.timeout(30):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                await asyncio.sleep(0.02)

    async def until_ended(self) -> CallEvent:
        return await self.until(lambda event: event.status in call_state.TERMINAL)

    async def add(self, event: CallEvent) -> None:
        if event.key in [seen.key for seen in self.events]:
            return
        self.events.append(event)
        if event.agent_waiting and self.connects:
            connected = await self.provider.connect(self.order)
            assert isinstance(connected, Accepted), connected

    async def listen(self) -> None:
        async with self.provider.listen() as reports:
            self.listening.set()
            async for report in reports:
                if report.call_id == self.order.call_id:
                    await self.add(report.event)

    async def ask(self) -> None:
        self.listening.set()
        while True:
            snapshot = await self.provider.fetch(self.ref)
            for event in snapshot.events if snapshot else ():
                await self.add(event)
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def placed(self) -> AsyncIterator["Following"]:
        self.listening = asyncio.Event()
        following = asyncio.create_task(self.listen() if self.provider.capabilities.stream else self.ask())
        try:
            await self.listening.wait()
            accepted = await self.provider.place(self.order)
            assert isinstance(accepted, Accepted), accepted
            order = self.order
            numbers = order.customer_number, order.agent_number, order.caller_id
            self.ref = CallRef(order.call_id, accepted.reference, *numbers, datetime.now(UTC))
            yield self
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            if self.hang_up_in_the_end:
                await self.provider.hangup(self.ref)


class ProviderContract:
    """Subclass it, and supply the fixture `stage`."""

    async def test_a_call_that_is_answered(self, stage: Stage) -> None:
        order = new_order(stage.customer, stage.agent)
        async with Following(stage.provider, order).placed() as call:
            ended = await call.until_ended()
        assert (ended.status, ended.hangup_cause) == (CallStatus.COMPLETED, "normal_clearing")
        assert ended.has_recording
        status = CallStatus.DIALING
        for event in call.events:
            moves = call_state.may_move(status, event.status, call_state.Mover.EVENT)
            assert moves or call_state.may_note(status, event.status), call.events
            status = event.status
        answered = [event for event in call.events if event.status == CallStatus.IN_PROGRESS]
        assert len(answered) == 1
        assert [event.at for event in call.events] == sorted(event.at for event in call.events)
        assert all(event.at.tzinfo for event in call.events)

        recording = await stage.provider.open_recording(call.ref, None)
        content = b"".join([chunk async for chunk in recording.chunks])
        samples, rate = soundfile.read(io.BytesIO(content), always_2d=True)
        assert len(samples) > rate / 2
        assert samples.shape[1] == (2 if stage.provider.capabilities.dual_channel else 1)
        await stage.provider.discard_recording(call.ref)
        await stage.provider.discard_recording(call.ref)

    async def test_who_does_not_answer(self, stage: Stage) -> None:
        assert stage.endings
        for ending in stage.endings:
            async with Following(stage.provider, new_order(ending.customer, ending.agent)).placed() as call:
                ended = await call.until_ended()
            assert (ended.status, ended.hangup_cause, ended.leg) == (ending.status, ending.hangup_cause, ending.leg)
            assert ended.detail, "the reason, for a person"
            assert not ended.has_recording
            # A recording may have begun when the customer was dialed.
            await stage.provider.discard_recording(call.ref)

    async def test_hanging_up(self, stage: Stage) -> None:
        if not stage.provider.capabilities.hangup:
            await self.a_hangup_does_nothing(stage, stage.agent)
            return
        async with Following(stage.provider, new_order(stage.patient_customer, stage.agent)).placed() as call:
            await call.until(lambda event: event.status == CallStatus.IN_PROGRESS)
            await stage.provider.hangup(call.ref)
            ended = await call.until_ended()
            assert ended.status == CallStatus.COMPLETED
            await stage.provider.hangup(call.ref)
            await asyncio.sleep(0.2)
            assert [event for event in call.events if event.status in call_state.TERMINAL] == [ended]
        snapshot = await stage.provider.fetch(call.ref)
        assert snapshot is None or snapshot.events[-1].status == CallStatus.COMPLETED
        await stage.provider.discard_recording(call.ref)

    async def test_hanging_up_before_anybody_answered(self, stage: Stage) -> None:
        (agent,) = [
            ending.agent for ending in stage.endings if (ending.leg, ending.status) == (Leg.AGENT, CallStatus.NO_ANSWER)
        ]
        if not stage.provider.capabilities.cancel:
            await self.a_hangup_does_nothing(stage, agent)
            return
        # The telephone rings so long that the hangup comes first, even on a slow machine.
        order = replace(new_order(stage.patient_customer, agent), agent_ring_seconds=60)
        async with Following(stage.provider, order).placed() as call:
            # Asterisk answers before it dials, and a call that was never dialed has no end.
            await call.until(lambda event: event.status == CallStatus.RINGING)
            await stage.provider.hangup(call.ref)
            ended = await call.until_ended()
            assert ended.status == CallStatus.CANCELED
            assert not ended.has_recording

    async def a_hangup_does_nothing(self, stage: Stage, agent: str) -> None:
        """Where the provider cannot end a call, the adapter does not say that it did."""
        async with Following(stage.provider, new_order(stage.patient_customer, agent)).placed() as call:
            await stage.provider.hangup(call.ref)
            snapshot = await stage.provider.fetch(call.ref)
            assert snapshot is not None
            assert CallStatus.CANCELED not in [event.status for event in (*call.events, *snapshot.events)]

    async def test_a_call_that_it_does_not_know(self, stage: Stage) -> None:
        ref = CallRef(call_ids.new_call_id(), f"never-{uuid4().hex}")
        assert await stage.provider.fetch(ref) is None
        await stage.provider.hangup(ref)
        await stage.provider.discard_recording(ref)
        with pytest.raises(RecordingUnavailable):
            await stage.provider.open_recording(ref, None)

    async def test_a_provider_that_is_away(self, stage: Stage) -> None:
        provider = stage.away()
        try:
            result = await provider.place(new_order(stage.customer, stage.agent))
            assert isinstance(result, Rejected | Unknown), "never an exception"
            assert result.reason
            if isinstance(result, Rejected):
                assert result.retry_after, "it is worth another try"
            with pytest.raises(ProviderError):
                await provider.fetch(CallRef("call_0000000000000000", "never"))
            if provider.capabilities.stream:
                with pytest.raises(ProviderError):
                    async with provider.listen():
                        pass
            findings = [finding async for finding in provider.check()]
            assert [finding for finding in findings if not finding.ok and finding.seen and finding.fix]
        finally:
            await provider.aclose()

    async def test_its_check_finds_all_in_order(self, stage: Stage) -> None:
        findings: list[Finding] = [finding async for finding in stage.provider.check()]
        assert findings
        assert not [finding for finding in findings if not finding.ok]
