"""The adapter: one order dials both, polling tells the rest.

Exotel has no way to end a call, or to mark an order so that it can be found again. An order whose answer was lost is
looked up among the account's calls by both numbers, the caller ID and the time.
"""

import json
import mimetypes
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from app.numbers import Callee, NumberRules, PhoneNumber
from app.telephony.base import (
    AdapterContext,
    CallOrder,
    CallRef,
    Capabilities,
    Finding,
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
from app.telephony.exotel.calls import ExotelCall, refusal
from app.telephony.exotel.check import check
from app.telephony.exotel.options import ExotelOptions
from app.telephony.rest import CREATED_AFTER, CREATED_BEFORE, LONGEST_SECONDS, RestClient, RestResponse, UnknownWords

_LONGEST_CALL_SECONDS = 14400
_LINK_MINUTES = "30"
"""How long a signed link to a recording works. Exotel allows 5 to 60."""
_RECORDING_WAIT = timedelta(minutes=45)
"""A recording that is not there this long after the end will not come."""
_OFTEN_SECONDS, _SELDOM_SECONDS = 10.0, 30.0
_OFTEN = timedelta(minutes=2)
"""An account may send 200 requests a minute. So a call that is up for longer than this is asked about less often."""
_RATE_SECONDS = 30.0
"""When to ask again after 429, because the limit counts by the minute."""
_SID = re.compile(r"[A-Za-z0-9]{1,64}")
_PAGES = 5
_PAGE_SIZE = "100"


class Exotel(TelephonyProvider):
    kind = "exotel"
    options = ExotelOptions
    capabilities = Capabilities(
        hangup=False, cancel=False, poll_seconds=_OFTEN_SECONDS, longest_dial_seconds=LONGEST_SECONDS
    )

    def __init__(self, options: ExotelOptions, context: AdapterContext) -> None:
        self._options = options
        self._home_country = context.home_country
        self._rules = NumberRules(context.home_country)
        self._zone = ZoneInfo(options.timezone)
        self._ring = timedelta(seconds=context.longest_ring_seconds)
        self._words = UnknownWords("Exotel")
        self._caller_id = context.read_caller_id(options.caller_id)
        self._rest = self._client(str(options.url))
        self._legs = None if options.legs_url is None else self._client(str(options.legs_url))
        self._stores: dict[str, RestClient] = {}
        self._account = f"/v1/Accounts/{options.account_sid}"

    @classmethod
    def make(cls, options: ExotelOptions, context: AdapterContext) -> Self:
        return cls(options, context)

    def _client(self, url: str) -> RestClient:
        options = self._options
        return RestClient("Exotel", url, username=options.api_key, password=options.api_token.get_secret_value())

    async def place(self, order: CallOrder) -> PlaceResult:
        caller_id = order.caller_id or self._caller_id
        if caller_id is None:
            return Rejected("Exotel needs an ExoPhone as the caller ID. Set the option caller_id to one of the account")
        return await self._rest.order(
            f"{self._account}/Calls/connect.json",
            form=list(self._form(order, caller_id)),
            reference=_reference,
            describe=refusal,
        )

    def _form(self, order: CallOrder, caller_id: PhoneNumber) -> Iterator[tuple[str, str]]:
        yield "From", self._spell(order.agent_number)
        yield "To", self._spell(order.customer_number)
        yield "CallerId", self._spell(caller_id)
        yield "CallType", "trans"
        yield "TimeLimit", str(min(_LONGEST_CALL_SECONDS, ceil(order.max_call_seconds)))
        # Exotel has one limit for both legs.
        yield "TimeOut", str(ceil(max(order.agent_ring_seconds, order.customer_ring_seconds)))
        yield "CustomField", order.call_id
        yield "Record", "true" if order.record else "false"
        if order.record:
            yield "RecordingChannels", "dual"
            yield "RecordingFormat", self._options.recording_format
        if order.notify_url is not None:
            yield "StatusCallback", order.notify_url
            yield "StatusCallbackEvents[0]", "terminal"
            yield "StatusCallbackEvents[1]", "answered"
            yield "StatusCallbackContentType", "application/json"

    def _spell(self, number: Callee) -> str:
        if isinstance(number, PhoneNumber):
            return number.format(self._options.number_format, self._home_country)
        return number.digits

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        sid = ref.reference or await self._find_lost(ref)
        if sid is None:
            # The list has no calls that are up. So this call may yet appear in it, for as long as it is waited for.
            return None if ref.dialed_at is None else Snapshot((), check_after=_SELDOM_SECONDS)
        found_now = sid if ref.reference is None else None
        response = await self._rest.request("GET", f"{self._account}/Calls/{sid}.json", query=[("details", "true")])
        if response.status == 429:
            return Snapshot((), check_after=max(_RATE_SECONDS, response.retry_after), reference=found_now)
        call = self._read(response)
        if call is None:
            return None
        if self._legs is not None:
            call = ExotelCall(call.call, await self._fetch_legs(self._legs, sid), self._zone, self._words)
        now = datetime.now(UTC)
        placed_at = ref.dialed_at or call.time("DateCreated")
        is_young = placed_at is None or now - placed_at < _OFTEN or not call.is_live
        return Snapshot(
            call.events(now, placed_at, self._ring),
            check_after=_OFTEN_SECONDS if is_young else _SELDOM_SECONDS,
            reference=found_now,
        )

    def _read(self, response: RestResponse) -> ExotelCall | None:
        """The call of a response. None: Exotel does not know it."""
        if response.status == 404:
            return None
        if response.status in (401, 403):
            raise ProviderError(f"Exotel refuses the credentials: {refusal(response)}")
        call = response.body.get("Call") if isinstance(response.body, dict) else None
        if not response.ok or not isinstance(call, dict):
            raise ProviderError(f"Exotel answered {refusal(response)}")
        return ExotelCall(call, {}, self._zone, self._words)

    async def _fetch_legs(self, client: RestClient, sid: str) -> dict[str, Any]:
        """The legs, or nothing: they add to what the call tells, so a failure here is none of the call."""
        try:
            response = await client.request("GET", f"/v3/accounts/{self._options.account_sid}/calls/{sid}/legs")
        except ProviderError:
            return {}
        body = response.body if response.ok and isinstance(response.body, dict) else {}
        inner = body.get("response")
        legs = inner.get("leg_details") if isinstance(inner, dict) else None
        return legs if isinstance(legs, dict) else {}

    async def _find_lost(self, ref: CallRef) -> str | None:
        """The reference of a call whose order was not answered: the oldest call between these numbers at that time that
        is no other of ours."""
        dialed_at = ref.dialed_at or datetime.now(UTC)
        first, last = (
            (dialed_at + margin).astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")
            for margin in (-CREATED_BEFORE, CREATED_AFTER)
        )
        path = f"{self._account}/Calls.json"
        query = [("DateCreated", f"gte:{first};lte:{last}"), ("SortBy", "DateCreated:asc"), ("PageSize", _PAGE_SIZE)]
        for _ in range(_PAGES):
            response = await self._rest.ask("GET", path, query=query)
            if not response.ok or not isinstance(response.body, dict):
                raise ProviderError(f"Exotel answered {refusal(response)}")
            calls = response.body.get("Calls") or []
            found = [call for call in calls if isinstance(call, dict) and self._is_lost(call, ref)]
            if found:
                return str(min(found, key=lambda call: str(call.get("DateCreated")))["Sid"])
            following = (response.body.get("Metadata") or {}).get("NextPageUri")
            if not calls or not isinstance(following, str) or not following.startswith("/"):
                return None
            path, query = following, []
        return None

    def _is_lost(self, call: dict[str, Any], ref: CallRef) -> bool:
        caller_id = ref.caller_id or self._caller_id
        return (
            isinstance(call.get("Sid"), str)
            and call["Sid"] not in ref.taken
            and self._is_number(call.get("From"), ref.agent_number)
            and self._is_number(call.get("To"), ref.customer_number)
            # A list may leave out the ExoPhone.
            and (call.get("PhoneNumberSid") is None or self._is_number(call["PhoneNumberSid"], caller_id))
        )

    def _is_number(self, written: object, number: Callee | None) -> bool:
        try:
            return number is not None and self._rules.read(str(written)) == number
        except ValueError:
            return False

    async def hangup(self, ref: CallRef) -> None:
        """Exotel cannot end a call. It ends by itself after the longest time allowed."""

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        sid = ref.reference or await self._find_lost(ref)
        if sid is None:
            raise RecordingUnavailable("Exotel does not know this call")
        query = [("details", "true"), ("RecordingUrlValidity", _LINK_MINUTES)]
        call = self._read(await self._rest.ask("GET", f"{self._account}/Calls/{sid}.json", query=query))
        if call is None:
            raise RecordingUnavailable("Exotel does not know this call")
        link = call.recording_url
        if link is None:
            ended = call.ended_before(datetime.now(UTC))
            if not call.is_live and (not call.has_talked or (ended is not None and ended > _RECORDING_WAIT)):
                raise RecordingUnavailable("Exotel has no recording of this call")
            raise ProviderError("Exotel has no recording of this call yet")
        return await self._download(link)

    async def _download(self, link: str) -> Recording:
        # Exotel's own hosts may want the credentials. Its store elsewhere gets a signed link, and never sees them.
        parts = urlsplit(link)
        is_exotels = parts.scheme == "https" and (parts.hostname or "").endswith(".exotel.com")
        client = self._store(f"https://{parts.netloc}") if is_exotels else self._rest
        download = await client.download(link)
        content_type = download.content_type
        if not content_type.startswith("audio/"):
            content_type = mimetypes.guess_type(parts.path)[0] or "audio/mpeg"
        return Recording(content_type, download.chunks, self._options.agent_channel)

    def _store(self, url: str) -> RestClient:
        """The client for a host of Exotel that keeps recordings."""
        if url not in self._stores:
            self._stores[url] = self._client(url)
        return self._stores[url]

    def reference_in(self, notification: Notification) -> str | None:
        """Exotel's list has no calls that are up. So this is the only way to find one whose order was not answered."""
        try:
            body = json.loads(notification.body)
        except ValueError:
            return None
        sid = body.get("CallSid") if isinstance(body, dict) else None
        return sid if isinstance(sid, str) and _SID.fullmatch(sid) else None

    def check(self) -> AsyncIterator[Finding]:
        return check(self._options, self._rest, self._legs, self._rules, self._caller_id)

    async def aclose(self) -> None:
        for client in (self._rest, self._legs, *self._stores.values()):
            if client is not None:
                await client.aclose()


def _reference(response: RestResponse) -> str | None:
    call = response.body.get("Call") if isinstance(response.body, dict) else None
    sid = call.get("Sid") if isinstance(call, dict) else None
    return sid if isinstance(sid, str) and sid else None
