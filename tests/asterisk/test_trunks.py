"""The recipes of docs/trunks.md, as they stand there: an Asterisk with each trunk calls another one, the far end."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import soundfile

from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.base import AdapterContext, CallStatus, RecordingUnavailable
from lab.asterisk import AsteriskServer
from tests.asterisk.far_end import TONE, FarEnd, recipe
from tests.provider_contract import Following, new_order


@pytest.fixture(scope="module")
def far_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FarEnd]]:
    """By whether they encrypt media, as `sdes` or `no`."""
    folder = tmp_path_factory.mktemp("far")
    ends = {encryption: FarEnd(folder / encryption, encryption=encryption) for encryption in ("no", "sdes")}
    for end in ends.values():
        end.server.start()
    yield ends
    for end in ends.values():
        end.server.stop()


RECIPES = {
    "register": ("transport-udp", "no"),
    "tcp": ("transport-tcp", "no"),
    "tcp with a password": ("transport-tcp", "no"),
    "tls": ("transport-tls", "sdes"),
}


@pytest.mark.parametrize("name", RECIPES)
async def test_a_call_over_each_trunk_has_audio_both_ways(
    name: str, far_ends: dict[str, FarEnd], tmp_path: Path
) -> None:
    transport, encryption = RECIPES[name]
    far = far_ends[encryption]
    port = {"transport-udp": far.udp, "transport-tcp": far.tcp, "transport-tls": far.tls}[transport]
    server = AsteriskServer(tmp_path / "near", more=recipe(name, transport, far, port))
    await asyncio.to_thread(server.start)
    options = AsteriskOptions.from_values({**server.options(), "dial": "PJSIP/{number}@trunk"})
    provider = Asterisk(options, AdapterContext("a-test", "a-test", tmp_path, "IN", longest_ring_seconds=5))
    try:
        findings = {}
        for _ in range(50):  # until it has registered, and the first OPTIONS was answered
            findings = {finding.what: finding async for finding in provider.check()}
            if all(finding.ok for finding in findings.values()):
                break
            await asyncio.sleep(0.2)
        assert [finding for finding in findings.values() if not finding.ok] == []
        assert transport.removeprefix("transport-") in findings["transport"].seen
        assert ("registration" in findings) is (name == "register")
        assert ("encryption" in findings) is (encryption == "sdes")

        order = new_order(customer="919876543212", agent="919876543211")
        async with Following(provider, order).placed() as call:
            ended = await call.until_ended()
        assert ended.status is CallStatus.COMPLETED, ended
        recording = await provider.open_recording(call.ref, None)
        audio, rate = soundfile.read(io.BytesIO(b"".join([chunk async for chunk in recording.chunks])))
        for channel in range(2):
            assert _loudest_frequency(audio[:, channel], rate) == pytest.approx(TONE, abs=10), channel
    finally:
        await provider.aclose()
        await asyncio.to_thread(server.stop)


async def test_a_call_that_is_not_to_be_recorded(far_ends: dict[str, FarEnd], tmp_path: Path) -> None:
    far = far_ends["no"]
    server = AsteriskServer(tmp_path / "near", more=recipe("tcp", "transport-tcp", far, far.tcp))
    await asyncio.to_thread(server.start)
    options = AsteriskOptions.from_values({**server.options(), "dial": "PJSIP/{number}@trunk"})
    provider = Asterisk(options, AdapterContext("a-test", "a-test", tmp_path, "IN", longest_ring_seconds=5))
    try:
        order = replace(new_order(customer="919876543212", agent="919876543211"), record=False)
        async with Following(provider, order).placed() as call:
            assert (await call.until_ended()).status is CallStatus.COMPLETED
        with pytest.raises(RecordingUnavailable):
            await provider.open_recording(call.ref, None)
        assert await asyncio.to_thread(server.recordings) == []
    finally:
        await provider.aclose()
        await asyncio.to_thread(server.stop)


def _loudest_frequency(samples: "numpy.typing.NDArray[numpy.float64]", rate: int) -> float:
    spectrum = numpy.abs(numpy.fft.rfft(samples))
    return float(numpy.argmax(spectrum) * rate / len(samples))
