"""The adapter: one order that holds the instructions to dial the customer, and then questions.

Twilio needs nothing of ours while a call is up: the order says how long each leg rings, and how long both may talk.
Notifications are not needed either. Every state can be asked for.
"""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote, urlsplit

from app.numbers import NumberFormat, PhoneNumber
from app.telephony.base import (
    AdapterContext,
    CallOrder,
    CallRef,
    Capabilities,
    Finding,
    Instructions,
    Notification,
    PlaceResult,
    ProviderError,
    Recording,
    RecordingUnavailable,
    Rejected,
    Snapshot,
    Talk,
    TelephonyProvider,
)
from app.telephony.rest import CREATED_AFTER, CREATED_BEFORE, LONGEST_SECONDS, RestClient, RestResponse, UnknownWords
from app.telephony.twilio.check import check
from app.telephony.twilio.events import LIVE, call_events, time_of
from app.telephony.twilio.options import TwilioOptions
from app.telephony.twilio.twiml import CONTENT_TYPE, dial_document, seconds

_VERSION = "/2010-04-01"
_RINGING_POLL_SECONDS = 2.0
_TALKING_POLL_SECONDS = 5.0
_BUSY_CODES = frozenset({"20429", "10004"})
"""Errors after which the same order may succeed: too many requests, too many calls at a time."""
_NO_CALLER_ID = "Twilio needs a number to show. Give the call a caller ID, or set caller_id to a number of the account"
_RECORDING_COMES = timedelta(minutes=10)
"""After this, a call without a recording will have none."""
_HANGUP_ATTEMPTS = 3
_MORE_SECONDS = 60
"""How much longer than both legs' limits a call may last at all, for the announcements."""


class Twilio(TelephonyProvider):
    kind = "twilio"
    options = TwilioOptions
    capabilities = Capabilities(hangup=True, longest_dial_seconds=LONGEST_SECONDS, poll_seconds=_TALKING_POLL_SECONDS)

    def __init__(self, options: TwilioOptions, context: AdapterContext) -> None:
        self._options = options
        self._home_country = context.home_country
        self._caller_id = context.read_caller_id(options.caller_id)
        self.capabilities = replace(type(self).capabilities, discard_recording=options.delete_recordings)
        username, password = options.credentials()
        base_url = str(options.base_url).rstrip("/").removesuffix(_VERSION)
        self._is_copy = not (urlsplit(base_url).hostname or "").endswith("twilio.com")
        self._rest = RestClient("Twilio", base_url, username=username, password=password)
        self._account = f"{_VERSION}/Accounts/{quote(options.account_sid)}"
        self._unknown = UnknownWords("Twilio")

    @classmethod
    def make(cls, options: TwilioOptions, context: AdapterContext) -> Self:
        return cls(options, context)

    async def place(self, order: CallOrder) -> PlaceResult:
        caller_id = order.caller_id or self._caller_id
        if caller_id is None:
            return Rejected(_NO_CALLER_ID)
        if not isinstance(order.agent_number, PhoneNumber):
            return Rejected(f"{order.agent_number} is an extension of a PBX, and {self.capabilities.extension_refusal}")
        longest = order.customer_ring_seconds + order.max_call_seconds + _MORE_SECONDS
        form = [
            ("To", self._spell(order.agent_number)),
            ("From", self._spell(caller_id)),
            ("Timeout", seconds(order.agent_ring_seconds)),
            ("TimeLimit", seconds(longest)),
        ]
        if self._options.inline:
            form.append(("Twiml", self.instructions(order).body))
        elif order.instructions_url is not None:
            form += [("Url", order.instructions_url), ("Method", "POST")]
        else:
            return Rejected(
                "With inline=false the provider asks this server for instructions, so it needs a public address. "
                "Set that, or set inline to true if the provider takes instructions with the order"
            )
        if order.notify_url is not None:
            form += [("StatusCallback", order.notify_url), ("StatusCallbackMethod", "POST")]
            form += [("StatusCallbackEvent", event) for event in ("ringing", "answered", "completed")]
        return await self._rest.order(
            f"{self._account}/Calls.json",
            form=form,
            reference=lambda response: response.find("sid"),
            is_busy=lambda response: response.find("code") in _BUSY_CODES,
            describe=_describe,
        )

    def instructions(self, order: CallOrder) -> Instructions:
        options = self._options
        caller_id = order.caller_id or self._caller_id
        document = dial_document(
            order,
            customer=self._spell(order.customer_number),
            caller_id=None if caller_id is None else self._spell(caller_id),
            announcement=None if options.announcement is None else str(options.announcement),
            whisper=None if options.customer_announcement is None else str(options.customer_announcement),
        )
        return Instructions(CONTENT_TYPE, document)

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        call, now = await self._call_and_time(ref)
        if call is None:
            return None
        status = call.get("status")
        customer = await self._find_customer_leg(call["sid"]) if status in ("in-progress", "completed") else None
        events = call_events(call, customer, now, self._unknown.warn)
        talking = customer is not None and customer.get("status") == "in-progress"
        return Snapshot(
            tuple(events),
            check_after=_TALKING_POLL_SECONDS if talking else _RINGING_POLL_SECONDS,
            reference=call["sid"] if ref.reference is None else None,
        )

    async def hangup(self, ref: CallRef) -> None:
        for _ in range(_HANGUP_ATTEMPTS):
            call, _now = await self._call_and_time(ref)
            if call is None or call.get("status") not in LIVE:
                return
            # `canceled` does nothing to a call that was answered meanwhile, so the status is asked again.
            wanted = "completed" if call["status"] == "in-progress" else "canceled"
            response = await self._rest.ask(
                "POST", f"{self._account}/Calls/{quote(call['sid'])}.json", form={"Status": wanted}
            )
            if response.ok and isinstance(response.body, dict) and response.body.get("status") not in LIVE:
                return
        raise ProviderError("Twilio does not end the call")

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        call, now = await self._call_and_time(ref)
        if call is None:
            raise RecordingUnavailable("Twilio does not know this call")
        recordings = await self._list_recordings(call["sid"])
        if not recordings:
            ended = time_of(call, "end_time")
            if call.get("status") not in LIVE and (ended is None or now - ended > _RECORDING_COMES):
                raise RecordingUnavailable("Twilio has no recording of this call")
            raise ProviderError("Twilio has no recording of this call yet")
        recording = recordings[0]
        status = recording.get("status", "completed")
        if status in ("absent", "deleted"):
            raise RecordingUnavailable(
                f"Twilio could not make the recording (error {recording.get('error_code')})"
                if status == "absent"
                else "The recording was deleted at Twilio"
            )
        if status != "completed":
            raise ProviderError(f"Twilio's recording is not ready: {status}")
        if recording.get("encryption_details"):
            raise RecordingUnavailable("Twilio encrypts recordings with a key of yours. Turn that off in its console")
        # Without the wish for two channels, both people are mixed into one. A recording with one refuses it.
        channels = "" if str(recording.get("channels", 2)) == "1" else "?RequestedChannels=2"
        found = await self._rest.download(f"{self._account}/Recordings/{quote(recording['sid'])}.wav{channels}")
        return Recording(found.content_type, found.chunks, agent_channel=self._options.agent_channel)

    async def discard_recording(self, ref: CallRef) -> None:
        if not self._options.delete_recordings:
            return
        call, _ = await self._call_and_time(ref)
        for recording in await self._list_recordings(call["sid"]) if call is not None else ():
            response = await self._rest.ask("DELETE", f"{self._account}/Recordings/{quote(recording['sid'])}.json")
            if not response.ok and response.status != 404:
                raise ProviderError(f"Twilio does not delete the recording: {_describe(response)}")

    def is_authentic(self, notification: Notification) -> bool:
        """Copies sign in ways of their own, and an API key signs nothing. Then the secret in the URL has to do."""
        token = self._options.auth_token
        if token is None or self._is_copy:
            return True
        sent = notification.headers.get("x-twilio-signature", "")
        fields = "".join(f"{name}{value}" for name, value in sorted(notification.form.items()))
        expected = (
            _signature(url + fields, token.get_secret_value()) for url in _with_and_without_port(notification.url)
        )
        return any([hmac.compare_digest(one.encode(), sent.encode()) for one in expected])

    async def check(self) -> AsyncIterator[Finding]:
        async for finding in check(self._rest, self._account, self._options, self._caller_id):
            yield finding

    async def aclose(self) -> None:
        await self._rest.aclose()

    def _spell(self, number: PhoneNumber) -> str:
        return number.format(NumberFormat.E164, self._home_country)

    async def _call_and_time(self, ref: CallRef) -> tuple[dict[str, Any] | None, datetime]:
        """The agent's call, and the time at Twilio."""
        if ref.reference is None:
            return await self._look_up(ref)
        response = await self._rest.ask("GET", f"{self._account}/Calls/{quote(ref.reference, safe='')}.json")
        if response.status == 404:
            return None, response.date
        return _object(response), response.date

    async def _look_up(self, ref: CallRef) -> tuple[dict[str, Any] | None, datetime]:
        """The oldest call that may be ours. Twilio keeps no id of ours, so it is found by its numbers and its time."""
        caller_id = ref.caller_id or self._caller_id
        if caller_id is None or not isinstance(ref.agent_number, PhoneNumber) or ref.dialed_at is None:
            return None, datetime.now(UTC)
        # The newest come first. A filter by time would leave out calls that are queued.
        query = {"To": self._spell(ref.agent_number), "From": self._spell(caller_id), "PageSize": "100"}
        response = await self._rest.ask("GET", f"{self._account}/Calls.json", query=query)
        skew = response.date - datetime.now(UTC)
        candidates = []
        for call in _list(response, "calls"):
            created = time_of(call, "date_created")
            if created is None or call.get("parent_call_sid") or call["sid"] in ref.taken:
                continue
            if -CREATED_BEFORE <= created - skew - ref.dialed_at <= CREATED_AFTER:
                candidates.append((created, call["sid"], call))
        for _, sid, call in sorted(candidates, key=lambda candidate: candidate[:2]):
            customer = await self._find_customer_leg(sid)
            if customer is None or ref.customer_number is None:
                return call, response.date
            if str(customer.get("to", "")).removeprefix("+") == ref.customer_number.digits:
                return call, response.date
        return None, response.date

    async def _find_customer_leg(self, sid: str) -> dict[str, Any] | None:
        response = await self._rest.ask("GET", f"{self._account}/Calls.json", query={"ParentCallSid": sid})
        children = _list(response, "calls")
        return min(
            children, key=lambda call: time_of(call, "date_created") or datetime.max.replace(tzinfo=UTC), default=None
        )

    async def _list_recordings(self, sid: str) -> list[dict[str, Any]]:
        """The recordings of both people, the newest first. They belong to the agent's call."""
        response = await self._rest.ask("GET", f"{self._account}/Calls/{quote(sid)}/Recordings.json")
        return [] if response.status == 404 else _list(response, "recordings")


def _object(response: RestResponse) -> dict[str, Any]:
    if not response.ok or not isinstance(response.body, dict) or "sid" not in response.body:
        raise ProviderError(f"Twilio answered {_describe(response)}")
    return response.body


def _list(response: RestResponse, name: str) -> list[dict[str, Any]]:
    found = response.body.get(name) if response.ok and isinstance(response.body, dict) else None
    if not isinstance(found, list):
        raise ProviderError(f"Twilio answered {_describe(response)}")
    return [item for item in found if isinstance(item, dict) and "sid" in item]


def _describe(response: RestResponse) -> str:
    code = response.find("code")
    return response.description if code is None else f"{response.description} (Twilio's error {code})"


def _signature(text: str, token: str) -> str:
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def _with_and_without_port(url: str) -> list[str]:
    """Twilio signs the URL with its port or without, whichever was given."""
    parts = urlsplit(url)
    host, port = parts.netloc, None
    with suppress(ValueError):
        port = parts.port
    if port is None:
        return [url, parts._replace(netloc=f"{host}:{443 if parts.scheme == 'https' else 80}").geturl()]
    return [url, parts._replace(netloc=host.rpartition(":")[0]).geturl()]
