"""The adapter: one order, instructions that the provider asks for when the agent has answered, and then questions.

Plivo asks this server what to do with an answered call. So unlike others, it needs a public address of this server.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from time import monotonic
from typing import Any, ClassVar, Self
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from app.numbers import PhoneNumber
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
from app.telephony.plivo.check import check
from app.telephony.plivo.events import LegRecord, call_events, ended_leg, live_leg, live_since
from app.telephony.plivo.options import PlivoOptions, VobizOptions
from app.telephony.plivo.signature import is_signed
from app.telephony.rest import CREATED_AFTER, CREATED_BEFORE, LONGEST_SECONDS, RestClient, RestResponse, UnknownWords

_RINGING_POLL_SECONDS = 2.0
_TALKING_POLL_SECONDS = 5.0
_RECORD_COMES_SECONDS = 60.0
"""How long a call may be neither up nor recorded as ended. One that has ended is no longer up before its record comes,
and one that was just ordered may not be up yet."""
_RECORDING_COMES = timedelta(minutes=10)
_MORE_SECONDS = 60
_MOST_LOOKED_AT = 20
_MOST_MISSING = 10_000
_NO_ADDRESS = (
    "{name} asks this server what to do with an answered call, so it needs a public address. Set "
    "RINGBACK_PUBLIC_URL to one that {name} can reach"
)


@dataclass(frozen=True, slots=True)
class _Variant:
    """How the two differ."""

    name: str
    domain: str
    """Whose hosts may see the credentials, such as that of recordings."""
    signature: str
    """The header of signatures, in lower case."""
    basic_auth: bool
    list_path: str
    """The list of ended calls, behind the account."""
    list_name: str
    parent: str
    """The field of a customer's record that names the agent's call."""
    slash: str
    """The end of paths to calls that are up. Vobiz's documentation has them without one, and says that it matters."""


class Plivo(TelephonyProvider):
    kind: ClassVar[str] = "plivo"
    options = PlivoOptions
    variant: ClassVar[_Variant] = _Variant(
        "Plivo",
        "plivo.com",
        "x-plivo-signature-v3",
        True,
        "/Call/",
        "objects",
        "parent_call_uuid",
        "/",
    )
    capabilities = Capabilities(hangup=True, longest_dial_seconds=LONGEST_SECONDS, poll_seconds=_TALKING_POLL_SECONDS)

    def __init__(self, options: PlivoOptions | VobizOptions, context: AdapterContext) -> None:
        self._options = options
        self._caller_id = context.read_caller_id(options.caller_id)
        self._has_public_address = context.has_public_address
        self.capabilities = replace(type(self).capabilities, discard_recording=options.delete_recordings)
        user, token = options.auth_id, options.auth_token.get_secret_value()
        signed_in: dict[str, Any] = (
            {"username": user, "password": token}
            if self.variant.basic_auth
            else {"headers": {"X-Auth-ID": user, "X-Auth-Token": token}}
        )
        self._rest = RestClient(self.variant.name, str(options.base_url), own_domain=self.variant.domain, **signed_in)
        self._account = f"/Account/{quote(options.auth_id)}"
        self._unknown = UnknownWords(self.variant.name)
        self._missing_since: dict[str, float] = {}

    @classmethod
    def make(cls, options: Any, context: AdapterContext) -> Self:
        return cls(options, context)

    async def place(self, order: CallOrder) -> PlaceResult:
        name, caller_id = self.variant.name, order.caller_id or self._caller_id
        if caller_id is None:
            return Rejected(f"{name} needs a number to show. Give the call a caller ID, or set caller_id")
        if not isinstance(order.agent_number, PhoneNumber):
            return Rejected(f"{order.agent_number} is an extension of a PBX, and {self.capabilities.extension_refusal}")
        if order.instructions_url is None:
            return Rejected(_NO_ADDRESS.format(name=name))
        body = {
            "from": caller_id.digits,
            "to": order.agent_number.digits,
            "answer_url": order.instructions_url,
            "answer_method": "POST",
            "ring_timeout": max(1, ceil(order.agent_ring_seconds)),
            "time_limit": ceil(order.customer_ring_seconds + order.max_call_seconds + _MORE_SECONDS),
        }
        if order.notify_url is not None:
            for event in ("ring", "hangup"):
                body |= {f"{event}_url": order.notify_url, f"{event}_method": "POST"}
        return await self._rest.order(
            f"{self._account}/Call/", json=body, reference=lambda response: response.find("request_uuid", "call_uuid")
        )

    def instructions(self, order: CallOrder) -> Instructions:
        options, caller_id = self._options, order.caller_id or self._caller_id
        dial = {"timeout": str(max(1, ceil(order.customer_ring_seconds)))}
        dial["timeLimit"] = longest = str(max(2, ceil(order.max_call_seconds)))
        if caller_id is not None:
            dial["callerId"] = caller_id.digits
        record = {
            "startOnDialAnswer": "true",
            "redirect": "false",
            "fileFormat": "wav",
            "recordChannelType": "stereo",
            "maxLength": longest,  # its own default is a minute
        }
        if order.notify_url is not None:
            dial |= {"callbackUrl": order.notify_url, "callbackMethod": "POST"}
            record |= {"callbackUrl": order.notify_url, "callbackMethod": "POST"}
        play = "" if options.announcement is None else f"<Play>{escape(str(options.announcement))}</Play>"
        recorded = f"<Record{_attributes(record)}/>" if order.record else ""
        number = f"<Number>{escape(order.customer_number.digits)}</Number>"
        body = f"<Response>{play}{recorded}<Dial{_attributes(dial)}>{number}</Dial></Response>"
        return Instructions("application/xml", f'<?xml version="1.0" encoding="UTF-8"?>{body}')

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        reference = ref.reference or await self._look_up(ref)
        if reference is None:
            return None
        found = (ref.reference is None and reference) or None
        agent, now = await self._agent_leg(reference)
        if agent is None:
            if ref.dialed_at is None or self._is_missing_for_long(reference):
                return None
            return Snapshot((), check_after=_RINGING_POLL_SECONDS, reference=found)
        self._missing_since.pop(reference, None)
        customer = None
        if agent.status == "in-progress":
            customer = await self._live_customer(ref, reference)
        if customer is None and (agent.status == "in-progress" or (agent.status is None and agent.was_answered)):
            customer = await self._ended_customer(ref, reference)
        events = call_events(agent, customer, now, self._unknown.warn)
        talking = customer is not None and customer.status == "in-progress"
        again = _TALKING_POLL_SECONDS if talking else _RINGING_POLL_SECONDS
        return Snapshot(tuple(events), check_after=again, reference=found)

    def _is_missing_for_long(self, reference: str) -> bool:
        """Whether the call was there neither now nor when this process asked a while ago."""
        if len(self._missing_since) > _MOST_MISSING:
            self._missing_since.clear()
        since = self._missing_since.setdefault(reference, monotonic())
        return monotonic() - since >= _RECORD_COMES_SECONDS

    async def hangup(self, ref: CallRef) -> None:
        reference = ref.reference or await self._look_up(ref)
        if reference is None:
            return
        for path in ("Call", "Request"):  # one that is up, one that is queued
            response = await self._rest.ask(
                "DELETE", f"{self._account}/{path}/{quote(reference, safe='')}{self.variant.slash}"
            )
            if response.ok:
                return
            if response.status != 404:
                raise ProviderError(f"{self.variant.name} does not end the call: {response.description}")

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        name, reference = self.variant.name, ref.reference or await self._look_up(ref)
        if reference is None:
            raise RecordingUnavailable(f"{name} does not know this call")
        links = [link for recording in await self._list_recordings(reference) if (link := _link(recording))]
        if not links:
            agent, now = await self._agent_leg(reference)
            if agent is None and ref.dialed_at is None:
                raise RecordingUnavailable(f"{name} does not know this call")
            if agent is not None and agent.ended is not None and now - agent.ended > _RECORDING_COMES:
                raise RecordingUnavailable(f"{name} has no recording of this call")
            raise ProviderError(f"{name} has no recording of this call yet")
        found = await self._rest.download(links[0])
        return Recording(found.content_type, found.chunks, agent_channel=self._options.agent_channel)

    async def discard_recording(self, ref: CallRef) -> None:
        if self._options.delete_recordings and ref.reference is not None:
            for recording in await self._list_recordings(ref.reference):
                path = f"{self._account}/Recording/{quote(str(recording['recording_id']))}/"
                response = await self._rest.ask("DELETE", path)
                if not response.ok and response.status != 404:
                    raise ProviderError(f"{self.variant.name} does not delete the recording: {response.description}")

    def is_authentic(self, notification: Notification) -> bool:
        return is_signed(notification, self._options.auth_token.get_secret_value(), self.variant.signature)

    async def check(self) -> AsyncIterator[Finding]:
        async for finding in check(
            self._rest,
            self._account,
            self._caller_id,
            lists_numbers=self.variant.basic_auth,
            has_public_address=self._has_public_address,
        ):
            yield finding

    async def aclose(self) -> None:
        await self._rest.aclose()

    async def _agent_leg(self, reference: str) -> tuple[LegRecord | None, datetime]:
        """The agent's leg, and the time at the provider."""
        path = f"{self._account}/Call/{quote(reference, safe='')}"
        for status in ("live", "queued"):
            slash = self.variant.slash if status == "live" else "/"
            response = await self._rest.ask("GET", path + slash, query={"status": status})
            if response.ok:
                return (live_leg(response.body) if status == "live" else LegRecord("", "queued")), response.date
        response = await self._rest.ask("GET", self._record_path(reference))
        if response.status == 404:
            return None, response.date
        body = _body(response)
        return ended_leg(body.get("data", body)), response.date

    def _record_path(self, reference: str) -> str:
        list_path = self.variant.list_path.rstrip("/")
        return f"{self._account}{list_path}/{quote(reference, safe='')}" + ("/" if self.variant.basic_auth else "")

    async def _live_customer(self, ref: CallRef, reference: str) -> LegRecord | None:
        """The customer's leg that is up. Live calls do not name the agent's call, so its number tells."""
        if ref.customer_number is None:
            return None
        found = await self._list_live(ref.customer_number)
        legs = [live_leg(call) for uuid, call in found if uuid != reference]
        return next((leg for leg in legs if leg.number == ref.customer_number.digits), None)

    async def _list_live(self, callee: PhoneNumber) -> list[tuple[str, dict[str, Any]]]:
        query, slash = {"status": "live", "to_number": callee.digits}, self.variant.slash
        listed = _body(await self._rest.ask("GET", f"{self._account}/Call{slash}", query=query)).get("calls", [])
        found = []
        for uuid in listed[:_MOST_LOOKED_AT]:
            response = await self._rest.ask(
                "GET", f"{self._account}/Call/{quote(uuid)}{slash}", query={"status": "live"}
            )
            if response.ok:
                found.append((uuid, _body(response)))
        return found

    async def _ended_customer(self, ref: CallRef, reference: str) -> LegRecord | None:
        records = await self._list_ended(ref.customer_number, reference)
        return next((ended_leg(one) for one in records if one.get(self.variant.parent) == reference), None)

    async def _list_ended(self, callee: PhoneNumber | None, parent: str | None) -> list[dict[str, Any]]:
        query = {"parent_call_uuid": parent} if parent is not None and self.variant.basic_auth else {}
        if callee is not None:
            query["to_number"] = callee.digits
        body = _body(await self._rest.ask("GET", f"{self._account}{self.variant.list_path}", query=query))
        return [one for one in body.get(self.variant.list_name) or [] if isinstance(one, dict)]

    async def _look_up(self, ref: CallRef) -> str | None:
        """The oldest call that may be ours, by its numbers and its time."""
        caller_id = ref.caller_id or self._caller_id
        if caller_id is None or not isinstance(ref.agent_number, PhoneNumber) or ref.dialed_at is None:
            return None
        first, last = ref.dialed_at - CREATED_BEFORE, ref.dialed_at + CREATED_AFTER
        found = [(uuid, live_leg(one), live_since(one, first)) for uuid, one in await self._list_live(ref.agent_number)]
        for one in await self._list_ended(ref.agent_number, None):
            if not one.get(self.variant.parent):  # a customer's leg has it
                leg = ended_leg(one)
                found.append((str(one.get("call_uuid") or one.get("uuid")), leg, leg.created))
        numbers = ref.agent_number.digits, caller_id.digits
        ours = [
            (created, uuid)
            for uuid, leg, created in found
            if created is not None and first <= created <= last
            if (leg.number, leg.caller) == numbers and uuid not in ref.taken
        ]
        return min(ours, default=(last, None))[1]

    async def _list_recordings(self, reference: str) -> list[dict[str, Any]]:
        response = await self._rest.ask("GET", f"{self._account}/Recording/", query={"call_uuid": reference})
        return (
            []
            if response.status == 404
            else [one for one in _body(response).get("objects") or [] if isinstance(one, dict)]
        )


class Vobiz(Plivo):
    kind = "vobiz"
    options = VobizOptions  # type: ignore[assignment]
    variant = _Variant("Vobiz", "vobiz.ai", "x-vobiz-signature-v3", False, "/cdr", "data", "bridge_uuid", "")


def _body(response: RestResponse) -> dict[str, Any]:
    if not response.ok or not isinstance(response.body, dict):
        raise ProviderError(f"The provider answered {response.description}")
    return response.body


def _link(recording: dict[str, Any]) -> str | None:
    """Where the file is. It may be the text "null"."""
    link = recording.get("recording_url")
    return link if isinstance(link, str) and link.startswith(("https://", "http://")) else None


def _attributes(values: dict[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in values.items())
