"""A hand-written fake of Twilio's REST interface, because its real one needs an account. Calls follow the clock.

Every request and every response is held against the part of Twilio's own API description in twilio_openapi.json.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import jsonschema_rs
from aiohttp import web

from app.telephony.simulator import CONVERSATIONS
from tests.integration.two_leg_calls import CALLER_ID, FakeLeg, TwoLegCall

ACCOUNT, TOKEN = "AC" + "0" * 32, "a token"
KEY, KEY_SECRET = "SK" + "0" * 32, "a secret"
_BASE = f"/2010-04-01/Accounts/{ACCOUNT}"
_DESCRIPTION = Path(__file__).with_name("twilio_openapi.json")
_STATUS = {"answered": "in-progress"}


@dataclass
class TwilioCall:
    sid: str
    child_sid: str
    caller_id: str
    call: TwoLegCall
    form: dict[str, str]
    recorded: bool


@dataclass
class FakeTwilio:
    """`failures` are what goes wrong with the next orders, one each: `lost` (dialed, but not answered), `broken`
    (dialed, but answered with 500), `busy` (429), `full` (too many calls), `refused` (a bad number)."""

    calls: list[TwilioCall] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    status_word: str | None = None
    """What it says instead of every status."""
    recording_status: str = "completed"
    channels: int = 2
    deleted: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"/2010-04-01/Accounts/{ACCOUNT}.json", self.account),
            web.post(f"{_BASE}/Calls.json", self.create),
            web.get(f"{_BASE}/Calls.json", self.list),
            web.get(f"{_BASE}/Calls/{{sid}}.json", self.get),
            web.post(f"{_BASE}/Calls/{{sid}}.json", self.update),
            web.get(f"{_BASE}/Calls/{{sid}}/Recordings.json", self.recordings),
            web.delete(f"{_BASE}/Recordings/{{sid}}.json", self.delete),
            web.get(f"{_BASE}/Recordings/{{sid}}.wav", self.media),
            web.get(f"{_BASE}/IncomingPhoneNumbers.json", self.numbers),
            web.get(f"{_BASE}/OutgoingCallerIds.json", self.verified),
        ]

    async def create(self, request: web.Request) -> web.Response:
        form = await self._form(request, "Calls.json", "post")
        failure = self.failures.pop(0) if self.failures else None
        if failure == "busy":
            return _error(429, 20429, "Too Many Requests", {"Retry-After": "7"})
        if failure == "full":
            return _error(400, 10004, "Call concurrency limit exceeded")
        if failure == "refused":
            return _error(400, 21211, f"The 'To' number {form['To']} is not a valid phone number.")
        dial = ElementTree.fromstring(form["Twiml"]).find("Dial")
        assert dial is not None
        (number,) = dial
        call = TwoLegCall(
            form["To"].removeprefix("+"),
            (number.text or "").removeprefix("+"),
            float(form["Timeout"]),
            float(dial.attrib["timeout"]),
        )
        sid = f"{2 * len(self.calls):032x}", f"{2 * len(self.calls) + 1:032x}"
        recorded = dial.get("record") == "record-from-answer-dual"
        self.calls.append(TwilioCall(f"CA{sid[0]}", f"CA{sid[1]}", form["From"], call, form, recorded))
        if failure == "lost":
            assert request.transport is not None
            request.transport.abort()
        if failure == "broken":
            return _error(500, 20500, "Internal Server Error")
        return self._answer(self._parent(self.calls[-1]), "Calls.json", "post", 201)

    async def list(self, request: web.Request) -> web.Response:
        query = self._query(request, "Calls.json")
        found = []
        for call in reversed(self.calls):
            found += [item for item in (self._child(call), self._parent(call)) if item is not None]
        for name, key in (("To", "to"), ("From", "from"), ("ParentCallSid", "parent_call_sid")):
            found = [call for call in found if query.get(name, call[key]) == call[key]]
        return self._answer(_page("calls", found[: int(query.get("PageSize", "50"))]), "Calls.json", "get")

    async def get(self, request: web.Request) -> web.Response:
        self._query(request, "Calls/{Sid}.json")
        call = self._find(request)
        return self._answer(call, "Calls/{Sid}.json", "get") if call else _error(404, 20404, "was not found")

    async def update(self, request: web.Request) -> web.Response:
        form = await self._form(request, "Calls/{Sid}.json", "post")
        call = next((call for call in self.calls if call.sid == request.match_info["sid"]), None)
        if call is None:
            return _error(404, 20404, "was not found")
        status = self._parent(call)["status"]
        if form["Status"] == "completed" or status in ("queued", "ringing"):
            call.call.hang_up()
        elif status != "in-progress":
            return _error(400, 21220, "Call is not in-progress. Cannot redirect.")
        return self._answer(self._parent(call), "Calls/{Sid}.json", "post")

    async def recordings(self, request: web.Request) -> web.Response:
        self._query(request, "Calls/{CallSid}/Recordings.json")
        call = next((call for call in self.calls if call.sid == request.match_info["sid"]), None)
        child = None if call is None else call.call.legs()[1]
        found = []
        if call is not None and call.recorded and child is not None and child.answered is not None:
            sid = f"RE{call.sid[2:]}"
            found = [] if sid in self.deleted else [self._recording(sid, call, child)]
        return self._answer(_page("recordings", found), "Calls/{CallSid}/Recordings.json", "get")

    async def delete(self, request: web.Request) -> web.Response:
        self._query(request, "Recordings/{Sid}.json", "delete")
        self.deleted.append(request.match_info["sid"])
        return web.Response(status=204)

    async def media(self, request: web.Request) -> web.StreamResponse:
        self._authorize(request)
        if request.match_info["sid"] in self.deleted:
            return _error(404, 20404, "was not found")
        # As documented: without the wish, both people are mixed into one channel.
        assert request.query == {"RequestedChannels": "2"} if self.channels == 2 else not request.query
        response = web.FileResponse(CONVERSATIONS / "callback.wav")
        response.content_type = "audio/x-wav"
        return response

    async def account(self, request: web.Request) -> web.Response:
        self._authorize(request, main=True)
        body = {"sid": ACCOUNT, "status": "active", "type": "Trial", "auth_token": TOKEN, "friendly_name": "Ours"}
        return self._answer(body, None, "get")

    async def numbers(self, request: web.Request) -> web.Response:
        query = self._query(request, "IncomingPhoneNumbers.json")
        found = [] if query.get("PhoneNumber") else [{"sid": "PN" + "0" * 32, "phone_number": "+14155550199"}]
        return self._answer(_page("incoming_phone_numbers", found), "IncomingPhoneNumbers.json", "get")

    async def verified(self, request: web.Request) -> web.Response:
        query = self._query(request, "OutgoingCallerIds.json")
        number = f"+{CALLER_ID}"
        found = [{"sid": "PN" + "1" * 32, "phone_number": number}] if query.get("PhoneNumber", number) == number else []
        return self._answer(_page("outgoing_caller_ids", found), "OutgoingCallerIds.json", "get")

    def _parent(self, call: TwilioCall) -> dict[str, Any]:
        return self._resource(call, call.call.legs()[0], call.sid, None)

    def _child(self, call: TwilioCall) -> dict[str, Any] | None:
        leg = call.call.legs()[1]
        return None if leg is None else self._resource(call, leg, call.child_sid, call.sid)

    def _find(self, request: web.Request) -> dict[str, Any] | None:
        for call in self.calls:
            for resource in (self._parent(call), self._child(call)):
                if resource is not None and resource["sid"] == request.match_info["sid"]:
                    return resource
        return None

    def _resource(self, call: TwilioCall, leg: FakeLeg, sid: str, parent: str | None) -> dict[str, Any]:
        start = leg.answered or leg.created
        duration = None
        if leg.answered and leg.ended:
            duration = str(int(leg.ended.timestamp()) - int(start.timestamp()))
        return {
            "sid": sid,
            "parent_call_sid": parent,
            "account_sid": ACCOUNT,
            "to": f"+{leg.number}",
            "from": call.caller_id,
            "status": self.status_word or _STATUS.get(leg.status, leg.status),
            "date_created": _time(leg.created),
            "start_time": None if leg.status == "queued" else _time(start),
            "end_time": leg.ended and _time(leg.ended),
            "duration": duration,
            "direction": "outbound-dial" if parent else "outbound-api",
            "uri": f"{_BASE}/Calls/{sid}.json",
        }

    def _recording(self, sid: str, call: TwilioCall, child: FakeLeg) -> dict[str, Any]:
        return {
            "sid": sid,
            "call_sid": call.sid,
            "status": "in-progress" if child.ended is None else self.recording_status,
            "channels": self.channels,
            "source": "DialVerb",
            "date_created": _time(child.answered or child.created),
            "encryption_details": None,
            "error_code": None,
        }

    async def _form(self, request: web.Request, path: str, method: str) -> dict[str, str]:
        self._authorize(request)
        pairs = parse_qsl(await request.text(), keep_blank_values=True, strict_parsing=True)
        schema = _operation(path, method)["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        _hold_against(_typed(pairs, schema["properties"]), schema)
        return dict(pairs)

    def _query(self, request: web.Request, path: str, method: str = "get") -> dict[str, str]:
        self._authorize(request)
        known = {parameter["name"]: parameter for parameter in _operation(path, method)["parameters"]}
        for name in request.query:
            assert known[name]["in"] == "query", name
        return dict(request.query)

    def _authorize(self, request: web.Request, *, main: bool = False) -> None:
        self.requests.append(f"{request.method} {request.path}")
        allowed = [(ACCOUNT, TOKEN)] if main else [(ACCOUNT, TOKEN), (KEY, KEY_SECRET)]
        sent = request.headers.get("Authorization", "").removeprefix("Basic ")
        if tuple(base64.b64decode(sent).decode().split(":")) not in allowed:
            error = _error(401, 20003, "Authenticate")
            raise web.HTTPUnauthorized(text=error.text, content_type="application/json")

    def _answer(self, body: dict[str, Any], path: str | None, method: str, status: int = 200) -> web.Response:
        if self.status_word is None:
            content = _operation(path, method)["responses"][str(status)]["content"]
            _hold_against(body, content["application/json"]["schema"])
        return web.json_response(body, status=status)


def _page(name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: found, "page": 0, "page_size": 50, "uri": "/", "first_page_uri": "/", "next_page_uri": None}


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(body, status=status, headers=headers)


def _time(time: datetime) -> str:
    return format_datetime(time.astimezone(UTC).replace(microsecond=0))


@cache
def _description() -> dict[str, Any]:
    """The description, with OpenAPI's `nullable` in the words of JSON Schema."""
    text = re.sub(r'"#/components/schemas/', '"#/$defs/', _DESCRIPTION.read_text())

    def plain(part: dict[str, Any]) -> dict[str, Any]:
        if part.pop("nullable", False) and "type" in part:
            part["type"] = [part["type"], "null"]
        return part

    description: dict[str, Any] = json.loads(text, object_hook=plain)
    return description


def _operation(path: str | None, method: str) -> dict[str, Any]:
    prefix = "/2010-04-01/Accounts/{AccountSid}"
    name = "/2010-04-01/Accounts/{Sid}.json" if path is None else f"{prefix}/{path}"
    operation: dict[str, Any] = _description()["paths"][name][method]
    return operation


def _typed(pairs: list[tuple[str, str]], properties: dict[str, Any]) -> dict[str, Any]:
    """A form with the types that its description gives the fields. Fails on a field that is not described."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        kind = properties[name].get("type")
        if kind == "array":
            found.setdefault(name, []).append(value)
        else:
            assert name not in found, f"{name} comes twice"
            found[name] = int(value) if kind == "integer" else value
    return found


def _hold_against(instance: object, schema: dict[str, Any]) -> None:
    jsonschema_rs.validate({**schema, "$defs": _description()["components"]["schemas"]}, instance)
