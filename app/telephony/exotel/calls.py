"""What Exotel tells of a call, as events, and of a refusal.

The call's own status says little: it is `in-progress` from the order on, and may be `completed` although the customer
never answered. Only the legs tell. They come with the end of the call, and earlier only from the Call Legs API. Times
of both APIs have seconds. Those of the Call Details API are without a zone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.telephony.base import CUSTOMER_DIALED, CallEvent, CallStatus, Leg
from app.telephony.rest import RestResponse, UnknownWords

SETTLE = timedelta(minutes=3)
"""Exotel completes the details of a call that has ended "within about two minutes"."""

_ANSWER_SLACK = timedelta(seconds=20)
_CLOCK_SLACK = timedelta(minutes=2)
_LIVE = frozenset({"queued", "ringing", "in-progress"})
_TALKED = "completed"
# How a leg ends that was not answered: our status, the cause in FreeSWITCH's words, and a sentence.
_UNANSWERED = {
    "busy": (CallStatus.BUSY, "user_busy", "The {leg}'s line is busy"),
    "no-answer": (CallStatus.NO_ANSWER, "no_answer", "The {leg} did not answer"),
    "failed": (CallStatus.FAILED, "normal_temporary_failure", "The {leg}'s telephone could not be reached"),
    "canceled": (CallStatus.CANCELED, "originator_cancel", "Hung up before the {leg} answered"),
}
_SPELLINGS = {"cancelled": "canceled", "null": "", "none": ""}


@dataclass(frozen=True, slots=True)
class ExotelCall:
    """One call of the Call Details API, and what the Call Legs API adds, if the account has it."""

    call: Mapping[str, Any]
    legs: Mapping[str, Any]
    zone: ZoneInfo
    words: UnknownWords

    @property
    def is_live(self) -> bool:
        return self._status in _LIVE

    @property
    def has_talked(self) -> bool:
        """Whether both people were joined, as far as it is known."""
        return self._leg(Leg.CUSTOMER) == _TALKED or bool(self._talk_seconds)

    @property
    def recording_url(self) -> str | None:
        """The link to the recording, signed if there is such a link. Exotel writes "null" where there is none."""
        for name in ("PreSignedRecordingUrl", "RecordingUrl"):
            link = self.call.get(name)
            if isinstance(link, str) and link.startswith(("https://", "http://")):
                return link
        return None

    def ended_before(self, now: datetime) -> timedelta | None:
        """How long ago the call ended. None: it is unknown."""
        ended = self.time("EndTime") or self.time("DateUpdated")
        return None if ended is None else now - ended

    def time(self, name: str) -> datetime | None:
        """A time of the Call Details API."""
        return _parse(self.call.get(name), self.zone)

    def events(self, now: datetime, placed_at: datetime | None, ring: timedelta) -> tuple[CallEvent, ...]:
        """Everything that happened so far. `ring` is the longest time that one leg rings."""
        status = self._status
        if status in _LIVE:
            return (*self._ringing(now), *self._answered_by_now(now, placed_at or self.time("DateCreated"), ring))
        if status != _TALKED and status not in _UNANSWERED:
            self.words.warn("status of a call", self.call.get("Status"))
            return ()
        end = self._end(now)
        return () if end is None else (*self._ringing(now), *end)

    def _ringing(self, now: datetime) -> Iterator[CallEvent]:
        """Of both legs. Exotel dials the customer once the agent has answered."""
        agent, customer = self._dialed_at(Leg.AGENT), self._dialed_at(Leg.CUSTOMER)
        if agent is not None:
            yield CallEvent("agent:ringing", CallStatus.RINGING, agent, leg=Leg.AGENT)
        elif self._status == "ringing" or self._leg(Leg.AGENT) in _LIVE:
            yield CallEvent("agent:ringing", CallStatus.RINGING, now, leg=Leg.AGENT, late=True)
        if customer is not None:
            yield CallEvent("agent:answered", CallStatus.RINGING, customer, leg=Leg.AGENT)
            yield CallEvent(CUSTOMER_DIALED, CallStatus.RINGING, customer, leg=Leg.CUSTOMER)

    @staticmethod
    def _answered_by_now(now: datetime, placed_at: datetime | None, ring: timedelta) -> Iterator[CallEvent]:
        """Nothing tells when a call is answered. But one that is up for longer than both legs can ring was answered."""
        if placed_at is not None and placed_at + 2 * ring + _ANSWER_SLACK <= now <= placed_at + timedelta(hours=6):
            yield CallEvent("answered", CallStatus.IN_PROGRESS, now, leg=Leg.CUSTOMER, late=True)

    def _end(self, now: datetime) -> tuple[CallEvent, ...] | None:
        """The end, after the answer if there was one. None: it cannot be told yet, or not at all."""
        agent, customer = self._leg(Leg.AGENT), self._leg(Leg.CUSTOMER)
        if self.has_talked:
            if (self._talk_seconds is None or self.time("EndTime") is None) and self._may_be_completed(now):
                return None
            return self._talk(now)
        for leg, word in ((Leg.CUSTOMER, customer), (Leg.AGENT, agent)):
            if word in _UNANSWERED:
                return (self._unanswered(now, word, leg),)
            if word and word != _TALKED:
                self.words.warn("status of a leg", word)
                return None
        if self._may_be_completed(now):
            return None
        if self._status in _UNANSWERED:
            return (self._unanswered(now, self._status, Leg.CUSTOMER if agent == _TALKED else None),)
        ended, late = self._ended_at(now)
        if agent == _TALKED:
            return (
                CallEvent(
                    "ended",
                    CallStatus.CANCELED,
                    ended,
                    leg=Leg.AGENT,
                    hangup_cause="originator_cancel",
                    detail="The agent answered, and the customer was not dialed",
                    late=late,
                ),
            )
        return (
            CallEvent(
                "ended",
                CallStatus.ENDED,
                ended,
                has_recording=self.recording_url is not None,
                detail="Exotel tells of neither leg whether it was answered",
                late=late,
            ),
        )

    def _talk(self, now: datetime) -> tuple[CallEvent, ...]:
        ended, late = self._ended_at(now)
        talk = self._talk_seconds
        end = CallEvent(
            "ended",
            CallStatus.COMPLETED,
            ended,
            leg=Leg.CUSTOMER,
            hangup_cause="normal_clearing",
            has_recording=True,
            late=late,
            talk_seconds=talk,
        )
        answered = ended - timedelta(seconds=talk or 0)
        return CallEvent("answered", CallStatus.IN_PROGRESS, answered, leg=Leg.CUSTOMER, late=late or talk is None), end

    def _unanswered(self, now: datetime, word: str, leg: Leg | None) -> CallEvent:
        status, cause, detail = _UNANSWERED[word]
        ended, late = self._ended_at(now)
        said = detail.format(leg=leg or "agent or the customer")
        return CallEvent("ended", status, ended, leg=leg, hangup_cause=cause, detail=said, late=late)

    def _ended_at(self, now: datetime) -> tuple[datetime, bool]:
        """When the call ended, and whether that is only when it was noticed. A time that cannot be is not believed: the
        option `timezone` may be wrong."""
        ended, created = self.time("EndTime"), self.time("DateCreated")
        if ended is None or ended > now + _CLOCK_SLACK or (created is not None and ended < created):
            return now, True
        return min(ended, now), False

    def _may_be_completed(self, now: datetime) -> bool:
        updated = self.time("DateUpdated")
        return updated is not None and -_CLOCK_SLACK <= now - updated < SETTLE

    @property
    def _status(self) -> str:
        return _word(self.call.get("Status"))

    @property
    def _talk_seconds(self) -> float | None:
        try:
            return float(self._details["ConversationDuration"])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def _details(self) -> Mapping[str, Any]:
        details = self.call.get("Details")
        return details if isinstance(details, Mapping) else {}

    def _leg(self, leg: Leg) -> str:
        """How this leg stands, or an empty text."""
        return _word(self._details.get("Leg1Status" if leg is Leg.AGENT else "Leg2Status")) or _word(
            (self._last_leg(leg) or {}).get("status")
        )

    def _dialed_at(self, leg: Leg) -> datetime | None:
        return _parse((self._last_leg(leg) or {}).get("date_created"), self.zone)

    def _last_leg(self, leg: Leg) -> Mapping[str, Any] | None:
        found = self.legs.get("from" if leg is Leg.AGENT else "to")
        return found[-1] if isinstance(found, list) and found and isinstance(found[-1], Mapping) else None


def refusal(response: RestResponse) -> str:
    """What Exotel says of a request that it refused."""
    error = response.body.get("RestException") if isinstance(response.body, dict) else None
    said = error.get("Message") if isinstance(error, dict) else None
    return f"{response.status} {said}" if said else response.description


def _word(value: object) -> str:
    word = value.strip().lower() if isinstance(value, str) else ""
    return _SPELLINGS.get(word, word)


def _parse(value: object, zone: ZoneInfo) -> datetime | None:
    """A time as `2017-03-03 10:48:33`, perhaps with an offset. Exotel writes 1970 for a time that has not come."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if time is None or time.year <= 1970:
        return None
    return (time.replace(tzinfo=zone) if time.tzinfo is None else time).astimezone(UTC)
