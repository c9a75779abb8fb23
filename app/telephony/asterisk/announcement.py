"""An announcement, as "this call is recorded", that both people hear before they hear each other.

The listener plays the sound into both channels when the customer answers. While a channel plays, Asterisk passes no
voice to or from it. The recording begins when the sound has ended on both. So there is never a recording of people who
were not informed, whatever fails: without a listener, or without the sound file, they talk and are not recorded.

Nothing is kept here. The customer's channel has the sound as a variable (`MARK`) from its beginning, and Asterisk sets
another one when a recording begins. So the next listener can go on, and a changed option concerns new calls only.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from app.telephony.asterisk.ari import Ari
from app.telephony.asterisk.events import channel_id, find_parts
from app.telephony.asterisk.manager import manager, start_recording
from app.telephony.asterisk.options import AsteriskOptions
from app.telephony.base import Leg, ProviderError

log = structlog.get_logger()

MARK = "RINGBACK_ANNOUNCEMENT"
_RECORDED = "MIXMONITOR_FILENAME"
"""The variable that MixMonitor sets on the channel that it records."""
_SUFFIX = "-announcement"
_OVER = {"done", "failed", "canceled"}
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5


class Announcer:
    """Plays the sound to the calls of one stream of events, and starts their recordings."""

    def __init__(self, options: AsteriskOptions, ari: Ari) -> None:
        self._options = options
        self._ari = ari
        self._running: set[asyncio.Task[None]] = set()
        self._started: set[str] = set()

    def resume(self, channels: list[dict[str, Any]]) -> None:
        """Go on with calls whose customer answered while nobody listened."""
        for channel in channels:
            self._answered(channel)

    def see(self, event: dict[str, Any]) -> None:
        """React to an event of the stream."""
        if event["type"] == "ChannelStateChange":
            self._answered(event["channel"])
        elif event["type"] == "PlaybackFinished" and str(event["playback"].get("id")).endswith(_SUFFIX):
            parts = find_parts(event["playback"]["id"].removesuffix(_SUFFIX))
            if parts is None:
                return
            failed = event["playback"].get("state") == "failed"
            self._start(parts[0], self._give_up(parts[0]) if failed else self._record(parts[0]))

    async def aclose(self) -> None:
        """Stop. The next listener goes on."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _answered(self, channel: dict[str, Any]) -> None:
        parts = find_parts(str(channel["id"]))
        if parts is not None and parts[1] is Leg.CUSTOMER and channel.get("state") == "Up":
            self._start(parts[0], self._play(parts[0]))

    def _start(self, call_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_log_failure(call_id, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _play(self, call_id: str) -> None:
        sound = await self._pending_sound(call_id)
        if sound is not None:
            await asyncio.gather(*(self._play_to(channel_id(call_id, leg), sound) for leg in Leg))

    async def _pending_sound(self, call_id: str) -> str | None:
        """The sound that this call still has to hear. None if it has none, is recorded already, or has ended."""
        sound = await self._variable(channel_id(call_id, Leg.CUSTOMER), MARK)
        recorded = sound and await self._variable(channel_id(call_id, Leg.AGENT), _RECORDED)
        return None if recorded else sound

    async def _variable(self, channel: str, name: str) -> str | None:
        answer = await self._ari.request("GET", f"/channels/{channel}/variable", variable=name)
        return (answer.body["value"] or None) if answer.ok else None

    async def _is_playing(self, playback: str) -> bool:
        answer = await self._ari.request("GET", f"/playbacks/{playback}")
        return answer.ok and answer.body["state"] not in _OVER  # it is there a moment longer than it plays

    async def _play_to(self, channel: str, sound: str) -> None:
        playback = f"{channel}{_SUFFIX}"
        if await self._is_playing(playback):  # the listener before this one has started it
            return
        for _ in range(_ATTEMPTS):
            answer = await self._ari.request("POST", f"/channels/{channel}/play", media=sound, playbackId=playback)
            if answer.ok or answer.status == 404:  # 404: this person has hung up
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise ProviderError(f"Asterisk does not play {sound}: {answer.description}")

    async def _record(self, call_id: str) -> None:
        """Record, once the sound was played to both."""
        if await self._pending_sound(call_id) is None:
            return
        for leg in Leg:
            if await self._is_playing(f"{channel_id(call_id, leg)}{_SUFFIX}"):  # its end will be an event
                return
        if call_id in self._started:  # both ended at once
            return
        self._started.add(call_id)
        try:
            async with manager(self._options) as ami:
                await start_recording(ami, channel_id(call_id, Leg.AGENT), call_id)
        finally:
            self._started.discard(call_id)

    async def _give_up(self, call_id: str) -> None:
        """The sound was not played to both. A person who hangs up ends it, too."""
        customer = channel_id(call_id, Leg.CUSTOMER)
        taken_off = await self._ari.request("POST", f"/channels/{customer}/variable", variable=MARK, value="")
        if taken_off.ok:
            _warn(call_id, "Asterisk could not play it")


async def _log_failure(call_id: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except ProviderError as error:
        # If Asterisk cannot be reached, the stream is about to break, too. The listener that connects again resumes.
        _warn(call_id, str(error))


def _warn(call_id: str, problem: str) -> None:
    log.warning("announcement_not_played", call_id=call_id, problem=f"{problem}. The call is not recorded")
