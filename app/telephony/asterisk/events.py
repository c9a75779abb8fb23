"""What ARI's events and channels say of a call, in the port's words. No I/O.

channel CALL_ID-agent       the first leg           bridge CALL_ID       both
channel CALL_ID-customer    the second              recording CALL_ID    agent left, customer right
"""

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from app.telephony.asterisk import causes
from app.telephony.base import CUSTOMER_DIALED, CallEvent, CallStatus, Leg, ProviderEvent, Snapshot

_RINGING = {"Ring", "Ringing"}
_RINGS = {"RINGING", "PROGRESS"}
_UP, _DOWN = "Up", "Down"
_FAR_END, _OURS = "far end", "ours"


def channel_id(call_id: str, leg: Leg) -> str:
    return f"{call_id}-{leg}"


def find_parts(channel: str) -> tuple[str, Leg] | None:
    """The call and the leg of a channel's id. None if the channel is not one of ours."""
    call_id, _, leg = channel.rpartition("-")
    return (call_id, Leg(leg)) if call_id and leg in set(Leg) else None


class EventTranslator:
    """Translates the events of a stream. Keeps the state of live channels, because their last event lacks it."""

    def __init__(self) -> None:
        self._dialed: set[str] = set()
        self._perhaps_dialed: set[str] = set()
        self._up: set[str] = set()
        self._rang: set[str] = set()
        self._hangups: dict[str, str] = {}

    def remember(self, channel: dict[str, Any]) -> None:
        """Add a channel that existed before the stream began. A silent one does not say whether it was dialed."""
        self._perhaps_dialed.add(channel["id"])
        if channel.get("state") == _UP:
            self._up.add(channel["id"])

    def translate(self, event: dict[str, Any]) -> ProviderEvent | None:
        """The event in the port's words. None if it is about no call."""
        channel = event.get("channel") or event.get("peer") or {}
        parts = find_parts(str(channel.get("id", "")))
        if parts is None:
            return None
        call_id, leg = parts
        at = datetime.fromisoformat(event["timestamp"])
        found: CallEvent | None = None
        if event["type"] in ("Dial", "ChannelStateChange"):
            self._dialed.add(channel["id"])
        match event["type"]:
            case "Dial" if not event.get("dialstatus") and leg is Leg.CUSTOMER:
                found = CallEvent(CUSTOMER_DIALED, CallStatus.RINGING, at, leg=leg)
            case "Dial" if event["dialstatus"] in _RINGS:
                # Many trunks send early media instead of ringing, which the channel's state does not show.
                self._rang.add(channel["id"])
                found = _standing(leg, "Ringing", at)
            case "ChannelStateChange":
                if channel["state"] == _UP:
                    self._up.add(channel["id"])
                found = _standing(leg, channel["state"], at, waiting=True)
            case "ChannelHangupRequest":
                # The first request counts. Asterisk reports the deletion of a channel that was not dialed as a
                # rejection.
                self._hangups.setdefault(channel["id"], _OURS if event.get("soft") else _FAR_END)
            case "ChannelDestroyed":
                if self._was_dialed(channel):
                    found = self._ended(call_id, leg, channel, event, at)
                self._dialed.discard(channel["id"])
                self._perhaps_dialed.discard(channel["id"])
                self._hangups.pop(channel["id"], None)
                self._up.discard(channel["id"])
                self._rang.discard(channel["id"])
        return None if found is None else ProviderEvent(call_id, found)

    def _was_dialed(self, channel: dict[str, Any]) -> bool:
        """Whether the channel was dialed. The end of another one says nothing about its call: the worker that made it
        has given it up."""
        if channel["state"] != _DOWN or channel["id"] in self._dialed:
            return True
        return channel["id"] in self._perhaps_dialed and self._hangups.get(channel["id"]) != _OURS

    def _ended(self, call_id: str, leg: Leg, channel: dict[str, Any], event: dict[str, Any], at: datetime) -> CallEvent:
        cause = int(event.get("cause") or 0)
        hangup = self._hangups.get(channel["id"])
        if channel["state"] != _UP:
            if hangup == _OURS and cause == causes.NORMAL:  # deleted before it was answered, by us or at Asterisk
                return CallEvent(
                    "ended", CallStatus.CANCELED, at, leg=leg, hangup_cause="originator_cancel", detail="Hung up here"
                )
            ending = causes.unanswered(
                leg,
                cause,
                event.get("tech_cause"),
                rang=channel["state"] in _RINGING or channel["id"] in self._rang,
                by_timeout=hangup == _OURS,
            )
            return CallEvent(
                "ended", ending.status, at, leg=leg, hangup_cause=ending.hangup_cause, detail=ending.detail
            )
        left = leg if hangup == _FAR_END else None
        if leg is Leg.CUSTOMER or channel_id(call_id, Leg.CUSTOMER) in self._up:
            # Without a hangup request, the channel's own time was up.
            return _completed(at, leg, left, causes.talked(cause, capped=hangup is None))
        return _agent_left(at)


def snapshot(
    agent: dict[str, Any] | None, customer: dict[str, Any] | None, date: str, *, longest_silence: float
) -> Snapshot | None:
    """What the two channels say now. None if there are none. `date` is Asterisk's clock.

    A channel that neither rings nor ends within `longest_silence` seconds was created and never dialed, because its
    worker died. It counts as missing.
    """
    now = datetime.now(UTC)
    agent = _unless_never_dialed(agent, date, longest_silence)
    customer = _unless_never_dialed(customer, date, longest_silence)
    if agent is None and customer is None:
        return None
    if agent is None:
        assert customer is not None
        joined = customer["state"] == _UP
        ended = _completed(now, Leg.AGENT, Leg.AGENT, "normal_clearing") if joined else _agent_left(now)
        return Snapshot((replace(ended, late=True),))
    events = [_standing(Leg.AGENT, agent["state"], now, waiting=customer is None)]
    if customer is not None:
        events.append(_standing(Leg.CUSTOMER, customer["state"], now))
    return Snapshot(tuple(replace(event, late=True) for event in events if event is not None))


def _standing(leg: Leg, state: str, at: datetime, *, waiting: bool = False) -> CallEvent | None:
    if state in _RINGING:
        return CallEvent(f"{leg}:ringing", CallStatus.RINGING, at, leg=leg)
    if state != _UP:
        return None
    if leg is Leg.AGENT:
        return CallEvent("agent:answered", CallStatus.RINGING, at, leg=leg, agent_waiting=waiting)
    return CallEvent("answered", CallStatus.IN_PROGRESS, at, leg=leg)


def _completed(at: datetime, leg: Leg, ended_by: Leg | None, cause: str) -> CallEvent:
    return CallEvent(
        "ended", CallStatus.COMPLETED, at, leg=leg, hangup_cause=cause, ended_by=ended_by, has_recording=True
    )


def _agent_left(at: datetime) -> CallEvent:
    return CallEvent(
        "ended",
        CallStatus.CANCELED,
        at,
        leg=Leg.AGENT,
        hangup_cause="originator_cancel",
        ended_by=Leg.AGENT,
        detail="The agent hung up before the customer answered",
    )


def _unless_never_dialed(channel: dict[str, Any] | None, date: str, longest: float) -> dict[str, Any] | None:
    if channel is None or channel["state"] == _UP or channel["state"] in _RINGING or not date:
        return channel
    age = parsedate_to_datetime(date) - datetime.fromisoformat(channel["creationtime"])
    return None if age.total_seconds() > longest else channel
