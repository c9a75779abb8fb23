"""A hosted call that really rings two telephones: a fake Exotel whose carrier is the lab's Asterisk."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

from app.call_state import TERMINAL
from app.numbers import PhoneNumber
from app.telephony.asterisk import Asterisk
from app.telephony.base import (
    CUSTOMER_DIALED,
    Accepted,
    CallEvent,
    CallOrder,
    CallRef,
    CallStatus,
    Leg,
    ProviderError,
    Talk,
)
from tests.asterisk.lab_installation import Lab, LabInstallation
from tests.fake_exotel import EXOPHONE, KEY, SID, TOKEN, FakeExotel, FakeExotelCall, to_mp3
from tests.word_errors import normalized, word_errors

REFERENCE = json.loads((Path(__file__).parents[1] / "audio/call_callback.json").read_text())
_WORDS = {CallStatus.BUSY: "busy", CallStatus.NO_ANSWER: "no-answer", CallStatus.COMPLETED: "completed"}


class AsteriskCarrier:
    """Makes the calls of a fake Exotel through the lab's Asterisk."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def __call__(self, call: FakeExotelCall) -> None:
        order = CallOrder(
            call.form["CustomField"],
            PhoneNumber(call.customer.number),
            PhoneNumber(call.agent.number),
            PhoneNumber(EXOPHONE),
            agent_ring_seconds=float(call.form["TimeOut"]),
            customer_ring_seconds=float(call.form["TimeOut"]),
            max_call_seconds=float(call.form["TimeLimit"]),
        )
        provider = self._lab.provider(installation=call.sid)
        try:
            happened: dict[str, CallEvent] = {}
            async with provider.listen() as reports, aclosing(reports):  # type: ignore[type-var]
                assert isinstance(await provider.place(order), Accepted)
                async for report in reports:
                    happened[report.event.key] = report.event
                    if report.event.agent_waiting:
                        assert isinstance(await provider.connect(order), Accepted)
                    self._tell(call, report.event)
                    if report.event.status in TERMINAL:
                        break
            await provider.hangup(CallRef(order.call_id, None))  # the one who did not hang up is still on the line
            if call.joined_at is not None:
                began = (call.joined_at - happened[CUSTOMER_DIALED].at).total_seconds()
                lasted = (report.event.at - call.joined_at).total_seconds()
                call.recording = to_mp3(await self._download(provider, order.call_id, Talk(began, lasted)))
            await provider.discard_recording(CallRef(order.call_id, None))
        finally:
            await provider.aclose()

    @staticmethod
    async def _download(provider: Asterisk, call_id: str, talk: Talk) -> bytes:
        """Asterisk closes the file a moment after the end."""
        async with asyncio.timeout(30):
            while True:
                try:
                    recording = await provider.open_recording(CallRef(call_id, None), talk)
                    return b"".join([chunk async for chunk in recording.chunks])
                except ProviderError:
                    await asyncio.sleep(0.2)

    @staticmethod
    def _tell(call: FakeExotelCall, event: CallEvent) -> None:
        leg = call.agent if event.leg is Leg.AGENT else call.customer
        if event.status is CallStatus.RINGING:
            leg.status, leg.dialed_at = "in-progress", leg.dialed_at or event.at
        elif event.status is CallStatus.IN_PROGRESS:
            call.joined_at = event.at
        elif event.status in TERMINAL:
            leg.status = _WORDS.get(event.status, "failed")
            if leg is call.customer:
                call.agent.status = "completed"
            if call.joined_at is not None:
                call.agent.status = call.customer.status = "completed"
            call.ended_at = event.at


async def test_a_call_over_exotel_rings_two_telephones_and_is_transcribed(lab: Lab, tmp_path: Path) -> None:
    async with FakeExotel(AsteriskCarrier(lab)).running() as fake:
        installation = LabInstallation(
            lab,
            tmp_path / "installation",
            RINGBACK_TELEPHONY_PROVIDER="exotel",
            RINGBACK_EXOTEL_ACCOUNT_SID=SID,
            RINGBACK_EXOTEL_API_KEY=KEY,
            RINGBACK_EXOTEL_API_TOKEN=TOKEN,
            RINGBACK_EXOTEL_URL=fake.url,
            RINGBACK_CALLER_ID=EXOPHONE,
        )
        try:
            await installation.open("calls-1")
            customer, agent = lab.number("248"), lab.number("100")
            call_id = await installation.place(customer, agent)
            call = await installation.ended(call_id)
            assert call.status == "completed", call.failure
            assert (lab.invites(agent), lab.invites(customer)) == (1, 1)
            (told,) = fake.calls.values()
            assert not fake.failures
            assert call.provider_reference == told.sid
            transcript = await installation.transcript(call_id)
            assert transcript.status == "ready", transcript.failure
            for role in ("agent", "customer"):
                said = normalized(" ".join(turn["content"] for turn in REFERENCE["turns"] if turn["role"] == role))
                heard = [turn["content"] for turn in transcript.history or () if turn["role"] == role]
                assert word_errors(said, normalized(" ".join(heard))) <= 0.2, f"{role}: {heard}"
        finally:
            await installation.close()
