"""The adapter: the agent's leg first, then the customer's, each by create and dial, joined before they answer.

A channel that was created and dialed needs no process of ours while it rings. Both channels are in the bridge before
the customer answers. So both people hear each other, are recorded, and are cut off after the longest time allowed, even
if every process of ours has died by then. Only an announcement, and the recording after it, needs one.

Only one request per leg rings a telephone, the `dial`. It is not sent again once it may have arrived. Every request
before it may be repeated.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Self

from app.numbers import Callee, PhoneNumber
from app.telephony.asterisk.announcement import MARK, Announcer
from app.telephony.asterisk.application import Application
from app.telephony.asterisk.ari import Ari, AriResponse, Lost
from app.telephony.asterisk.check import check
from app.telephony.asterisk.events import EventTranslator, channel_id, snapshot
from app.telephony.asterisk.manager import manager, start_recording
from app.telephony.asterisk.options import EXTENSION_REFUSAL, AsteriskOptions
from app.telephony.asterisk.wav import FRAME_BYTES, frames_before_the_talk, frames_of_the_talk, wav_header
from app.telephony.base import (
    Accepted,
    AdapterContext,
    CallOrder,
    CallRef,
    Capabilities,
    Finding,
    Leg,
    PlaceResult,
    ProviderError,
    ProviderEvent,
    Recording,
    RecordingUnavailable,
    Rejected,
    Snapshot,
    Talk,
    TelephonyProvider,
    Unknown,
)

_PREPARE_SECONDS = 8.0
"""A leg that could not be dialed within this time is not dialed any more, because the call may have been given up."""
_DIAL_SECONDS = 4.0
"""How long to wait for the answer to a dial."""
_ENTERING_SECONDS = 0.005
"""The pause between two attempts, while a new channel enters our application."""
_CLEAR_SECONDS = 2.0
"""How long deleting the channel of a leg that was not dialed may take. After that, `hangup` does it later."""
_RETRY_SECONDS = 2.0
_LONGEST_SILENCE_SECONDS = 10.0
"""How long a channel may exist beyond its ring time."""
_CLOSING_SECONDS = 0.3  # from the end of a channel to the last byte of its recording
_EMPTY_READS = 3
"""How often an empty recording is read, once a second, because it may be about to be closed."""


class _NotDialed(Exception):
    """Certainly nothing rang. `retry`: trying again later may work."""

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


class Asterisk(TelephonyProvider):
    kind = "asterisk"
    options = AsteriskOptions
    capabilities = Capabilities(
        hangup=True,
        discard_recording=True,
        stream=True,
        poll_seconds=5.0,
        longest_dial_seconds=_PREPARE_SECONDS + _DIAL_SECONDS + _CLEAR_SECONDS,
    )

    def __init__(self, options: AsteriskOptions, context: AdapterContext) -> None:
        self._options = options
        self._application = Application(options.app or f"ringback-{context.installation}", context.installation)
        self._home_country = context.home_country
        refusal = None if options.extension_dial is not None else EXTENSION_REFUSAL
        self.capabilities = replace(type(self).capabilities, extension_refusal=refusal)
        self._ari = Ari(str(options.url), options.username, options.password.get_secret_value())
        self._longest_silence = context.longest_ring_seconds + _LONGEST_SILENCE_SECONDS

    @classmethod
    def make(cls, options: AsteriskOptions, context: AdapterContext) -> Self:
        return cls(options, context)

    async def place(self, order: CallOrder) -> PlaceResult:
        return await self._dialed(order, Leg.AGENT, self._prepare_agent(order))

    async def connect(self, order: CallOrder) -> PlaceResult:
        return await self._dialed(order, Leg.CUSTOMER, self._prepare_customer(order))

    async def _dialed(self, order: CallOrder, leg: Leg, preparing: Any) -> PlaceResult:
        began = monotonic()
        channel = channel_id(order.call_id, leg)
        try:
            async with asyncio.timeout(_PREPARE_SECONDS):
                await preparing
            return await self._dial(order, leg, channel, until=began + _PREPARE_SECONDS)
        except (TimeoutError, Lost) as error:
            result: PlaceResult = Rejected(str(error) or "Asterisk answers too slowly", retry_after=_RETRY_SECONDS)
        except _NotDialed as error:
            result = Rejected(str(error), retry_after=_RETRY_SECONDS if error.retry else None)
        with suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(_CLEAR_SECONDS):
                await self._delete(f"/channels/{channel}")
        return result

    async def _dial(self, order: CallOrder, leg: Leg, channel: str, *, until: float) -> PlaceResult:
        """The one request that rings a telephone. It is sent again only if Asterisk said that it did nothing."""
        seconds = order.agent_ring_seconds if leg is Leg.AGENT else order.customer_ring_seconds
        while monotonic() < until:  # or this process was frozen
            try:
                async with asyncio.timeout(_DIAL_SECONDS):
                    answer = await self._ari.request("POST", f"/channels/{channel}/dial", timeout=str(round(seconds)))
            except TimeoutError:
                return Unknown("Asterisk did not answer the dial")
            except Lost as error:
                if not error.perhaps_done:
                    raise
                return Unknown(str(error))
            if answer.ok:
                return Accepted(channel)
            if answer.status == 404:
                raise _NotDialed(f"The {leg}'s leg was gone before it was dialed", retry=True)
            if answer.status != 409:
                return Unknown(f"Asterisk answered the dial with {answer.description}")
            await asyncio.sleep(_ENTERING_SECONDS)  # 409: the channel is still entering our application
        raise _NotDialed(f"Dialing the {leg}'s leg took too long", retry=True)

    async def _prepare_agent(self, order: CallOrder) -> None:
        await self._create(order, Leg.AGENT, order.agent_number)
        channel = channel_id(order.call_id, Leg.AGENT)
        await self._entered(channel)
        await self._show(order, channel)

    async def _prepare_customer(self, order: CallOrder) -> None:
        agent, customer = channel_id(order.call_id, Leg.AGENT), channel_id(order.call_id, Leg.CUSTOMER)
        bridge = f"/bridges/{order.call_id}"
        await self._require("POST", "/bridges", type="mixing", bridgeId=order.call_id)
        await self._join(bridge, agent)
        announcement = self._options.announcement if order.record else None
        if order.record and announcement is None:
            await self._start_recording(order.call_id, agent)
        await self._create_until_entered(order, agent, customer)
        if announcement is not None:
            await self._set(customer, MARK, announcement)  # the listener records, once it was played to both
        await self._join(bridge, customer)
        await self._show(order, customer)  # joining has overwritten the number that is shown
        longest = str(round(order.max_call_seconds + order.customer_ring_seconds + 5))
        await asyncio.gather(*(self._set(channel, "TIMEOUT(absolute)", longest) for channel in (agent, customer)))

    async def _create_until_entered(self, order: CallOrder, agent: str, customer: str) -> None:
        """The agent waits on the line, so wait for a listener that is just connecting again."""
        while True:
            await self._create(order, Leg.CUSTOMER, order.customer_number, originator=agent)
            try:
                await self._entered(customer)
                return
            except _NotDialed:
                await asyncio.sleep(0.2)

    async def _create(self, order: CallOrder, leg: Leg, callee: Callee, *, originator: str | None = None) -> None:
        try:
            endpoint = self._options.endpoint(callee, self._home_country)
        except ValueError as error:
            raise _NotDialed(f"{callee} is an extension of a PBX, and {error}", retry=False) from error
        channel = channel_id(order.call_id, leg)
        answer = await self._answer(
            "POST",
            "/channels/create",
            leg is Leg.CUSTOMER,  # nobody waits for the agent's leg yet, so the call can wait in the queue
            endpoint=endpoint,
            app=self._application.name,
            channelId=channel,
            appArgs=f"{order.call_id},{leg}",
            **({} if originator is None else {"originator": originator}),
        )
        if answer.ok or answer.status == 409:  # 409: an attempt whose answer was lost has created it
            return
        if answer.status in (401, 403):
            raise _NotDialed(
                "Asterisk refuses the options username and password (RINGBACK_ASTERISK_USERNAME, _PASSWORD)",
                retry=False,
            )
        raise _NotDialed(
            f"Asterisk makes no channel for {self._options.dial}: {answer.description}. `ringback providers check`",
            retry=False,
        )

    async def _entered(self, channel: str) -> None:
        """Wait until the new channel is in our application. Before that, it cannot be dialed."""
        while True:
            answer = await self._answer("GET", f"/channels/{channel}")
            if answer.status == 404:
                raise _NotDialed(
                    f"Asterisk removed the new channel. Is a calls worker connected as {self._application.name}?",
                    retry=True,
                )
            if answer.ok and answer.body["dialplan"]["app_name"] == "Stasis":
                return
            await asyncio.sleep(_ENTERING_SECONDS)

    async def _join(self, bridge: str, channel: str) -> None:
        while True:
            answer = await self._answer("POST", f"{bridge}/addChannel", channel=channel)
            if answer.ok:
                return
            if answer.status not in (409, 422):  # 409, 422: not in our application yet
                raise _NotDialed(f"The agent's leg was gone: {answer.description}", retry=False)
            await asyncio.sleep(_ENTERING_SECONDS)

    async def _start_recording(self, call_id: str, channel: str) -> None:
        """Record both sides apart in one file. Only AMI can do that."""
        try:
            async with manager(self._options) as ami:
                await start_recording(ami, channel, call_id)
        except ProviderError as error:
            raise _NotDialed(f"The recording could not be started: {error}", retry=False) from error

    async def _show(self, order: CallOrder, channel: str) -> None:
        """Set the number to show. On the wire it is From or P-Asserted-Identity, as the trunk's endpoint says. Setting
        the caller id instead would make it Anonymous."""
        if order.caller_id is not None:
            await self._set(channel, "CONNECTEDLINE(num,i)", self._spell(order.caller_id))
            await self._set(channel, "CONNECTEDLINE(pres,i)", "allowed")

    def _spell(self, number: PhoneNumber) -> str:
        return number.format(self._options.number_format, self._home_country)

    async def _set(self, channel: str, variable: str, value: str) -> None:
        await self._require("POST", f"/channels/{channel}/variable", variable=variable, value=value)

    async def _require(self, method: str, path: str, **query: str) -> None:
        while not (answer := await self._answer(method, path, **query)).ok:
            if answer.status != 409:  # 409: the channel shows as entered, but is not quite in our application yet
                # 404: Asterisk removes a new channel if our listener is just connecting again.
                refused = f"Asterisk refused {path.rpartition('/')[2]}: {answer.description}"
                raise _NotDialed(refused, retry=answer.status == 404)
            await asyncio.sleep(_ENTERING_SECONDS)

    async def _answer(self, method: str, path: str, patient: bool = True, /, **query: str) -> AriResponse:
        """Send a request that may be repeated, until the answer is not a server's fault. The caller limits the time.
        Raises `Lost` only if not `patient`, when Asterisk cannot be reached or has no ARI yet."""
        pause = 0.05
        while True:
            try:
                answer = await self._ari.request(method, path, **query)
            except Lost as error:
                if not error.perhaps_done and not patient:
                    raise
            else:
                # Asterisk answers a create with 500 if the endpoint is unknown, and would do so again.
                if answer.status < 500 or answer.description.endswith("Allocation failed"):
                    return answer
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        agent, customer = await asyncio.gather(
            *(self._channel(channel_id(ref.call_id, leg)) for leg in (Leg.AGENT, Leg.CUSTOMER))
        )
        return snapshot(agent[0], customer[0], agent[1], longest_silence=self._longest_silence)

    async def _channel(self, channel: str) -> tuple[dict[str, Any] | None, str]:
        """The channel or None, and the time at Asterisk."""
        answer = await self._ari.request("GET", f"/channels/{channel}")
        if not answer.ok and answer.status != 404:
            raise ProviderError(f"Asterisk answered {answer.description}")
        return answer.body if answer.ok else None, answer.date

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        await self._application.hold(self._ari)
        async with self._ari.events(self._application.name) as events:
            await self._registered()
            translator = EventTranslator()
            channels = await self._ari.request("GET", "/channels")
            if not channels.ok:
                raise ProviderError(f"Asterisk answered {channels.description}")
            for channel in channels.body:
                translator.remember(channel)
            announcer = Announcer(self._options, self._ari)
            announcer.resume(channels.body)
            try:
                yield _provider_events(events, translator, announcer)
            finally:
                await announcer.aclose()

    async def _registered(self) -> None:
        """Wait until Asterisk knows the application. It accepts the connection a moment before, and rejects channels
        until then."""
        for _ in range(100):
            if await self._application.is_registered(self._ari):
                return
            await asyncio.sleep(0.02)
        raise ProviderError(f"Asterisk does not register the application {self._application.name}")

    async def hangup(self, ref: CallRef) -> None:
        # The bridge first, so that a worker that is just preparing the customer's leg finds it gone, and stops.
        await self._delete(f"/bridges/{ref.call_id}")
        for leg in (Leg.AGENT, Leg.CUSTOMER):
            await self._delete(f"/channels/{channel_id(ref.call_id, leg)}", reason="normal")

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        for _ in range(30):
            if (await self._channel(channel_id(ref.call_id, Leg.AGENT)))[0] is None:
                break
            await asyncio.sleep(0.1)
        else:
            raise ProviderError("The recording is still being written")
        await asyncio.sleep(_CLOSING_SECONDS)
        stored = await self._ari.request("GET", f"/recordings/stored/{ref.call_id}")
        if stored.status == 404:
            why = "" if self._options.announcement is None else ". Its announcement was not played to the end"
            raise RecordingUnavailable(f"Asterisk has none of this call{why}")
        if not stored.ok:
            raise ProviderError(f"Asterisk answered {stored.description}")
        return Recording("audio/wav", self._wav(ref.call_id, talk))

    async def _wav(self, call_id: str, talk: Talk | None) -> AsyncIterator[bytes]:
        for _ in range(_EMPTY_READS):
            async with self._ari.download(f"/recordings/stored/{call_id}/file") as answer:
                if answer.status != 200 or answer.content_length is None:
                    raise ProviderError(f"Asterisk does not send the recording: {answer.status}")
                if frames := answer.content_length // FRAME_BYTES:
                    skip = frames_before_the_talk(frames, talk)
                    kept = frames_of_the_talk(frames - skip, talk)
                    yield wav_header(kept)
                    to_drop, left = skip * FRAME_BYTES, kept * FRAME_BYTES
                    async for chunk in answer.content.iter_chunked(256 * 1024):
                        part = chunk[to_drop : to_drop + left]
                        to_drop, left = max(0, to_drop - len(chunk)), left - len(part)
                        yield part
                    return
            await asyncio.sleep(1)
        # Asterisk writes one second at a time. Killed in a shorter call, it has written nothing.
        raise RecordingUnavailable("Asterisk wrote nothing of this call: it was stopped, or no sound reached it")

    async def discard_recording(self, ref: CallRef) -> None:
        await self._delete(f"/recordings/stored/{ref.call_id}")

    async def _delete(self, path: str, **query: str) -> None:
        """Delete it. 404 is not an error, because then it is gone."""
        answer = await self._ari.request("DELETE", path, **query)
        if not answer.ok and answer.status != 404:
            raise ProviderError(f"Asterisk answered {answer.description} to DELETE {path}")

    def check(self) -> AsyncIterator[Finding]:
        return check(self._options, self._ari, self._application, self._home_country)

    async def aclose(self) -> None:
        await self._ari.aclose()


async def _provider_events(
    events: AsyncIterator[dict[str, Any]], translator: EventTranslator, announcer: Announcer
) -> AsyncIterator[ProviderEvent]:
    async for event in events:
        announcer.see(event)
        report = translator.translate(event)
        if report is not None:
            yield report
