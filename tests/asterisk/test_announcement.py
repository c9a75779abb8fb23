"""An announcement that both people hear before they hear each other, on two real Asterisks.

The far end's telephones keep what they hear: the announcement is one tone, the agent's voice another one, which the
customer's telephone sends back.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import pytest
import soundfile

from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.asterisk.ari import Ari
from app.telephony.base import Accepted, AdapterContext, CallStatus, Leg, RecordingUnavailable
from lab.asterisk import AsteriskServer
from tests.asterisk.far_end import TONE, FarEnd, recipe
from tests.provider_contract import Following, new_order

Samples = numpy.typing.NDArray[numpy.int16]

ANNOUNCED = 900
"""Hertz, for a second."""
RATE = 8000
AGENT, CUSTOMER = "919876543211", "919876543212"
JOINED_TENTHS = 3
"""How many tenths of a second the two may hear each other between the answer and the sound."""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarEnd]:
    far = FarEnd(tmp_path_factory.mktemp("far") / "end")
    far.server.start()
    yield far
    far.server.stop()


@pytest.fixture(scope="module")
def server(far: FarEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskServer]:
    near = AsteriskServer(tmp_path_factory.mktemp("near") / "server", more=recipe("tcp", "transport-tcp", far, far.tcp))
    near.start()
    yield near
    near.stop()


@pytest.fixture
def sound(tmp_path: Path) -> str:
    samples = 0.3 * numpy.sin(2 * numpy.pi * ANNOUNCED * numpy.arange(RATE) / RATE)
    soundfile.write(tmp_path / "recorded.wav", samples, RATE, subtype="PCM_16")
    return f"sound:{tmp_path / 'recorded'}"


@asynccontextmanager
async def adapter(server: AsteriskServer, folder: Path, announcement: str | None) -> AsyncIterator[Asterisk]:
    values = {**server.options(), "dial": "PJSIP/{number}@trunk", "app": "announces"}
    if announcement is not None:
        values["announcement"] = announcement
    provider = Asterisk(
        AsteriskOptions.from_values(values), AdapterContext("a-test", "a-test", folder, "IN", longest_ring_seconds=5)
    )
    try:
        yield provider
    finally:
        await provider.aclose()


async def test_both_hear_it_before_they_hear_each_other(
    server: AsteriskServer, far: FarEnd, tmp_path: Path, sound: str
) -> None:
    async with adapter(server, tmp_path, sound) as provider:
        async with Following(provider, new_order(CUSTOMER, AGENT)).placed() as call:
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        recorded = await _recording(provider, call)
    for number in (AGENT, CUSTOMER):
        announced, talked = _tenths_of(far.heard(number), ANNOUNCED), _tenths_of(far.heard(number), TONE)
        assert 8 <= len(announced) <= 12, number
        assert len([tenth for tenth in talked if tenth < min(announced)]) <= JOINED_TENTHS, number
        assert len([tenth for tenth in talked if tenth > max(announced)]) >= 10, number
        assert not [tenth for tenth in talked if min(announced) < tenth < max(announced)], number
    for side in recorded.T:
        assert len(_tenths_of(side, TONE)) >= 10
        assert not _tenths_of(side, ANNOUNCED)


@pytest.mark.parametrize("dies", ["before the answer", "during the sound"])
async def test_the_next_listener_goes_on(
    dies: str, server: AsteriskServer, far: FarEnd, tmp_path: Path, sound: str
) -> None:
    """By then the option has been removed, which concerns new calls only."""
    order = new_order(CUSTOMER, AGENT)
    async with adapter(server, tmp_path, sound) as provider, adapter(server, tmp_path, None) as other:
        call = Following(provider, order)
        if dies == "before the answer":
            # Asterisk needs a listener. This one does nothing.
            async with _ari(server) as ari, ari.events("announces") as events:
                assert isinstance(await provider.place(order), Accepted)
                await _until_up(events, Leg.AGENT)
                assert isinstance(await provider.connect(order), Accepted)
                await _until_up(events, Leg.CUSTOMER)
        else:
            async with call.placed():
                await call.until(lambda event: event.key == "answered")
                await _until_playing(server, order.call_id)
                call.hang_up_in_the_end = False
        async with other.listen() as reports:
            async for report in reports:
                if report.event.status is CallStatus.COMPLETED:
                    break
        await other.hangup(call.ref)
        recorded = await _recording(other, call)
    assert 8 <= len(_tenths_of(far.heard(AGENT), ANNOUNCED)) <= 12
    assert 8 <= len(_tenths_of(far.heard(CUSTOMER), ANNOUNCED)) <= 12
    assert len(_tenths_of(recorded[:, 1], TONE)) >= 8
    assert not _tenths_of(recorded[:, 1], ANNOUNCED)


async def test_without_the_sound_there_is_no_recording(server: AsteriskServer, tmp_path: Path) -> None:
    async with adapter(server, tmp_path, "sound:no/such/file") as provider:
        (finding,) = [finding async for finding in provider.check() if finding.what == "announcement"]
        assert not finding.ok
        assert "no/such/file" in finding.seen
        async with Following(provider, new_order(CUSTOMER, AGENT)).placed() as call:
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        with pytest.raises(RecordingUnavailable):
            await provider.open_recording(call.ref, None)


async def test_the_agent_hangs_up_during_the_sound(server: AsteriskServer, tmp_path: Path, sound: str) -> None:
    async with adapter(server, tmp_path, sound) as provider:
        async with Following(provider, new_order(CUSTOMER, AGENT)).placed() as call:
            await _until_playing(server, call.order.call_id)
            await asyncio.to_thread(server.run, f"channel request hangup {call.order.call_id}-agent")
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        with pytest.raises(RecordingUnavailable):
            await provider.open_recording(call.ref, None)
    assert await asyncio.to_thread(server.left) == []


async def test_a_call_that_is_not_recorded_has_no_announcement(
    server: AsteriskServer, far: FarEnd, tmp_path: Path, sound: str
) -> None:
    async with adapter(server, tmp_path, sound) as provider:
        async with Following(provider, replace(new_order(CUSTOMER, AGENT), record=False)).placed() as call:
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        with pytest.raises(RecordingUnavailable):
            await provider.open_recording(call.ref, None)
    assert not _tenths_of(far.heard(AGENT), ANNOUNCED)


@asynccontextmanager
async def _ari(server: AsteriskServer) -> AsyncIterator[Ari]:
    ari = Ari(server.url, server.options()["username"], server.options()["password"])
    try:
        yield ari
    finally:
        await ari.aclose()


async def _until_up(events: AsyncIterator[dict[str, Any]], leg: Leg) -> None:
    async for event in events:
        channel = event.get("channel", {})
        if event["type"] == "ChannelStateChange" and channel["id"].endswith(leg) and channel["state"] == "Up":
            return


async def _until_playing(server: AsteriskServer, call_id: str) -> None:
    async with _ari(server) as ari:
        while not (await ari.request("GET", f"/playbacks/{call_id}-agent-announcement")).ok:
            await asyncio.sleep(0.01)


async def _recording(provider: Asterisk, call: Following) -> Samples:
    """Agent left, customer right. It is then deleted."""
    recording = await provider.open_recording(call.ref, None)
    audio, rate = soundfile.read(io.BytesIO(b"".join([chunk async for chunk in recording.chunks])), dtype="int16")
    assert rate == RATE
    await provider.discard_recording(call.ref)
    samples: Samples = audio
    return samples


def _tenths_of(samples: Samples, frequency: int) -> list[int]:
    """The tenths of a second in which this is the loudest frequency."""
    size = RATE // 10
    found = []
    for tenth in range(len(samples) // size):
        part = samples[tenth * size : (tenth + 1) * size].astype(float)
        loudest = int(numpy.argmax(numpy.abs(numpy.fft.rfft(part)))) * 10
        if numpy.abs(part).max() > 500 and abs(loudest - frequency) <= 20:
            found.append(tenth)
    return found
