"""The adapter: sends the requests of its template, and reads the answers by its paths."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from typing import Any, Self
from zoneinfo import ZoneInfo

from app.options import SettingsError
from app.telephony.base import (
    CUSTOMER_DIALED,
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
    Rejected,
    Snapshot,
    Talk,
    TelephonyProvider,
)
from app.telephony.http.options import HttpOptions
from app.telephony.http.template import STATUSES, MissingValue, Request, Template, fill, fill_body, find, spell
from app.telephony.rest import (
    LONGEST_SECONDS,
    RestClient,
    RestResponse,
    UnknownWords,
)

_ENDS = {
    CallStatus.COMPLETED: ("normal_clearing", None),
    CallStatus.ENDED: (None, "The service does not tell whether the call was answered"),
    CallStatus.BUSY: ("user_busy", "The {leg}'s line is busy"),
    CallStatus.NO_ANSWER: ("no_answer", "The {leg} did not answer"),
    CallStatus.FAILED: ("normal_temporary_failure", "The {leg}'s telephone could not be reached"),
    CallStatus.CANCELED: ("originator_cancel", "Hung up before the {leg} answered"),
}


class TemplateProvider(TelephonyProvider):
    kind = "http"
    options = HttpOptions
    capabilities = Capabilities(hangup=False, cancel=False, longest_dial_seconds=LONGEST_SECONDS)

    def __init__(self, options: HttpOptions, context: AdapterContext) -> None:
        self._options = options
        self._template = template = options.load()
        self._values: dict[str, str] = options.read_values(template)
        self._home_country = context.home_country
        self._caller_id = context.read_caller_id(options.caller_id)
        try:
            self._zone = ZoneInfo(template.timezone)
        except (KeyError, OSError, ValueError):
            raise SettingsError(f"template: timezone: there is no {template.timezone}") from None
        can_end = template.cancel is not None
        self.capabilities = replace(
            type(self).capabilities,
            hangup=can_end,
            cancel=can_end,
            dual_channel=template.dual_channel,
            poll_seconds=template.poll_seconds,
        )
        auth = template.auth
        self._rest = RestClient(
            template.name,
            str(options.url or template.url),
            username=None if auth is None else fill(auth.username, self._values),
            password="" if auth is None else fill(auth.password, self._values),
            headers={name: fill(text, self._values) for name, text in template.headers.items()},
        )
        self._words = UnknownWords(template.name)

    @classmethod
    def make(cls, options: HttpOptions, context: AdapterContext) -> Self:
        return cls(options, context)

    @property
    def template(self) -> Template:
        return self._template

    async def place(self, order: CallOrder) -> PlaceResult:
        template = self._template.order
        try:
            path, body, form = _filled(template, self._order_values(order))
        except MissingValue as error:
            return Rejected(f"{self._template.name} needs {error}. The options or the call must name one")
        return await self._rest.order(
            path,
            method=template.method,
            json=body,
            form=form,
            reference=self._reference,
            is_accepted=self._is_accepted,
            is_busy=self._is_busy,
        )

    def _reference(self, response: RestResponse) -> str | None:
        reference = find(response.body, self._template.order.reference)
        return str(reference) if isinstance(reference, str | int) else None

    def _is_accepted(self, response: RestResponse) -> bool:
        return all(find(response.body, path) == value for path, value in self._template.order.accepted.items())

    def _is_busy(self, response: RestResponse) -> bool:
        template = self._template.order
        if response.status in template.busy_statuses:
            return True
        # After one of these, the order may have been taken, whatever the words.
        is_clear = response.status < 500 and response.status != 408
        return is_clear and any(word.lower() in str(response.body).lower() for word in template.busy_words)

    def _order_values(self, order: CallOrder) -> dict[str, str | int | None]:
        numbers = self._template.numbers
        caller_id = order.caller_id or self._caller_id
        return {
            **self._values,
            "customer": spell(order.customer_number, numbers.customer, self._home_country),
            "agent": spell(order.agent_number, numbers.agent, self._home_country),
            "caller_id": None if caller_id is None else spell(caller_id, numbers.caller_id, self._home_country),
            "call_id": order.call_id,
            "notify_url": order.notify_url,
            "max_seconds": ceil(order.max_call_seconds),
            "agent_ring_seconds": ceil(order.agent_ring_seconds),
            "customer_ring_seconds": ceil(order.customer_ring_seconds),
        }

    async def _ask(self, request: Request, ref: CallRef) -> RestResponse | None:
        """None: the service does not know the call."""
        # No call has the reference "none". So a call without a reference is unknown, but a service that is away is not.
        values = {**self._values, "reference": ref.reference or "none", "call_id": ref.call_id}
        path, body, form = _filled(request, values)
        response = await self._rest.request(request.method, path, json=body, form=form)
        if response.status == 404:
            return None
        if not response.ok:
            raise ProviderError(f"{self._template.name} answered {response.description}")
        return response

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        """Without `[ask]`, nothing is known: only reports tell (`/api/calls/call-log`). The same holds for a call whose
        reference was lost with the answer to its order, unless the service can be asked by our call ID."""
        if self._template.ask is None:
            if ref.dialed_at is None and ref.reference is None:
                await self._rest.request("GET", "/")  # raises if the service is away
                return None
            return Snapshot(())
        call = await self._find_call(ref)
        if call is not None:
            return Snapshot(tuple(self._events(call)))
        return Snapshot(()) if ref.reference is None and ref.dialed_at is not None else None

    async def _find_call(self, ref: CallRef) -> Any | None:
        ask = self._template.ask
        response = None if ask is None else await self._ask(ask, ref)
        return None if ask is None or response is None else find(response.body, ask.call)

    def _events(self, call: Any) -> list[CallEvent]:
        ask = self._template.ask
        assert ask is not None
        now = datetime.now(UTC)
        whole = self._word(call, ask.status)
        legs = {Leg.AGENT: self._word(call, ask.agent_status), Leg.CUSTOMER: self._word(call, ask.customer_status)}
        if whole is None:
            return []
        events = []
        answered_at = self._time(find(call, ask.answered_at))
        if whole not in STATUSES:
            if legs[Leg.AGENT] in ("ringing", "in_progress"):
                events.append(CallEvent("agent:ringing", CallStatus.RINGING, now, leg=Leg.AGENT, late=True))
            if legs[Leg.CUSTOMER] in ("ringing", "in_progress"):
                events.append(CallEvent("agent:answered", CallStatus.RINGING, now, leg=Leg.AGENT, late=True))
                events.append(CallEvent(CUSTOMER_DIALED, CallStatus.RINGING, now, leg=Leg.CUSTOMER, late=True))
        # Where the service tells of the customer's leg, the call itself says nothing of the answer.
        told = whole if ask.customer_status is None else legs[Leg.CUSTOMER]
        end = STATUSES.get(whole)
        leg, end = self._outcome(legs, end)
        if told == "in_progress" or (end is CallStatus.COMPLETED and answered_at is not None):
            at = answered_at or now
            answer = CallEvent("answered", CallStatus.IN_PROGRESS, at, leg=Leg.CUSTOMER, late=answered_at is None)
            events = [event for event in events if event.at <= at] + [answer]
        if end is not None:
            events.append(self._ended(call, end, leg, now))
        return events

    @staticmethod
    def _outcome(legs: dict[Leg, str | None], end: CallStatus | None) -> tuple[Leg | None, CallStatus | None]:
        """Which leg ended the call and how. An unanswered leg says more than the call."""
        if end is not None:
            for leg in (Leg.CUSTOMER, Leg.AGENT):
                status = STATUSES.get(legs[leg] or "")
                if status not in (None, CallStatus.COMPLETED, CallStatus.ENDED):
                    return leg, status
        return None, end

    def _ended(self, call: Any, end: CallStatus, leg: Leg | None, now: datetime) -> CallEvent:
        ask = self._template.ask
        assert ask is not None
        ended_at = self._time(find(call, ask.ended_at))
        cause, detail = _ENDS[end]
        try:
            talk: float | None = float(str(find(call, ask.talk_seconds))) if ask.talk_seconds else None
        except ValueError:
            talk = None
        return CallEvent(
            "ended",
            end,
            ended_at or now,
            leg=leg,
            hangup_cause=cause,
            has_recording=end in (CallStatus.COMPLETED, CallStatus.ENDED) and ask.recording is not None,
            detail=detail and detail.format(leg=leg or "agent or the customer"),
            late=ended_at is None,
            talk_seconds=talk,
        )

    def _word(self, call: Any, path: str | None) -> str | None:
        """What the service's word means, or None for an unknown or ignored one."""
        word = None if path is None else find(call, path)
        if word is None or word == "":
            return None
        meaning = self._template.status.get(str(word).lower())
        if meaning is None:
            self._words.warn(f"word at {path}", word)
        return None if meaning == "ignore" else meaning

    def _time(self, value: Any) -> datetime | None:
        """A time as seconds since 1970, or as text, in the template's zone if it names none."""
        try:
            if isinstance(value, int | float) and value > 0:
                return datetime.fromtimestamp(value, UTC)
            time = datetime.fromisoformat(value) if isinstance(value, str) else None
        except (ValueError, OverflowError, OSError):
            return None
        if time is None:
            return None
        return (time.replace(tzinfo=self._zone) if time.tzinfo is None else time).astimezone(UTC)

    async def hangup(self, ref: CallRef) -> None:
        if self._template.cancel is not None:
            await self._ask(self._template.cancel, ref)

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        ask = self._template.ask
        if ask is None or ask.recording is None:
            raise RecordingUnavailable(f"The template of {self._template.name} names no recording")
        call = await self._find_call(ref)
        if call is None:
            raise RecordingUnavailable(f"{self._template.name} does not know this call")
        link = find(call, ask.recording)
        if not isinstance(link, str) or not link.startswith(("https://", "http://", "/")):  # "null", for example
            raise ProviderError(f"{self._template.name} has no recording of this call yet")
        download = await self._rest.download(link)
        is_audio = download.content_type.startswith("audio/")
        content_type = download.content_type if is_audio else "audio/wav" if ".wav" in link else "audio/mpeg"
        return Recording(content_type, download.chunks, self._options.agent_channel)

    async def check(self) -> AsyncIterator[Finding]:
        ask = self._template.ask
        nowhere = CallRef("call_0000000000000000", "none")
        yield Finding("template", ok=True, seen=f"{self._template.name}: {self._options.template}")
        try:
            if ask is None:
                await self._rest.request("GET", "/")
            else:
                await self._ask(ask, nowhere)
        except ProviderError as error:
            yield Finding(
                self._template.name, ok=False, seen=str(error), fix="Check the template, its values and the url"
            )
            return
        seen = "answers. It cannot be asked about calls: have it report them" if ask is None else "answers"
        yield Finding(self._template.name, ok=True, seen=f"{self._rest.base_url} {seen}")

    async def aclose(self) -> None:
        await self._rest.aclose()


def _filled(
    request: Request, values: Mapping[str, str | int | None]
) -> tuple[str, dict[str, Any] | None, dict[str, str] | None]:
    """Path, JSON and form of the request with these values. Raises `MissingValue`."""
    body = None if request.json_body is None else fill_body(request.json_body, values)
    form = None if request.form is None else fill_body(request.form, values)
    form = None if form is None else {name: str(value) for name, value in form.items()}
    return fill(request.path, values, in_path=True), body, form
