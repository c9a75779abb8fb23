"""A hand-written fake of the REST interfaces of Plivo and Vobiz, because their real ones need an account. Calls follow
the clock."""

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree

from aiohttp import web

from app.telephony.simulator import CONVERSATIONS
from tests.integration.two_leg_calls import CALLER_ID, FakeLeg, TwoLegCall

AUTH_ID, AUTH_TOKEN = "MA000000000000000001", "a token"
_CAUSES = {"completed": "Normal Hangup", "busy": "Busy Line", "no-answer": "No Answer", "canceled": "Canceled"}
_INDIA = timedelta(hours=5, minutes=30)
_STATUS = {"answered": "in-progress"}


@dataclass
class PlivoCall:
    uuid: str
    child_uuid: str
    call: TwoLegCall
    body: dict[str, Any]
    recorded: bool


@dataclass
class FakePlivo:
    """`failures` are what goes wrong with the next orders, one each: `lost` (dialed, but not answered), `broken`
    (dialed, but answered with 500), `busy` (429), `refused` (400)."""

    vobiz: bool = False
    calls: list[PlivoCall] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    """What our server answers to the URLs of instructions."""
    failures: list[str] = field(default_factory=list)
    link: str | None = ""
    """What it says of a recording instead of its link, if not empty."""
    deleted: list[str] = field(default_factory=list)
    zoneless: bool = False
    """Live calls begin at a time in India, without its zone."""
    filters: bool = True
    """Whether lists have only what the query asks for."""
    hides_records: bool = False
    """Records of ended calls are not there yet."""
    status_word: str | None = None
    """The status of every live call, instead of its own."""

    def routes(self) -> list[web.RouteDef]:
        account = f"{'/api' if self.vobiz else ''}/v1/Account/{AUTH_ID}"
        return [
            web.post(f"{account}/Call/", self.create),
            web.get(f"{account}/{{path:Call/?}}", self.list_calls),
            web.get(f"{account}/Call/{{uuid:[^/]+}}{{slash:/?}}", self.get),
            web.get(f"{account}/cdr", self.records),
            web.get(f"{account}/cdr/{{uuid}}", self.get),
            web.delete(f"{account}/Call/{{uuid:[^/]+}}{{slash:/?}}", self.delete),
            web.delete(f"{account}/Request/{{uuid:[^/]+}}{{slash:/?}}", self.delete),
            web.get(f"{account}/Recording/", self.recordings),
            web.delete(f"{account}/Recording/{{uuid}}/", self.delete_recording),
            web.get(f"{account}/Number/{CALLER_ID}/", self.number),
            web.get("/media.wav", self.media),
        ]

    async def create(self, request: web.Request) -> web.Response:
        self._authorize(request)
        body = await request.json()
        failure = self.failures.pop(0) if self.failures else None
        if failure == "busy":
            return web.json_response({"error": "too many calls"}, status=429)
        if failure == "refused":
            return web.json_response({"error": "to parameter is not valid"}, status=400)
        document = ElementTree.fromstring(self.documents[body["answer_url"]])
        dial, number = document.find("Dial"), document.findtext("Dial/Number")
        assert dial is not None
        assert number is not None
        call = TwoLegCall(body["to"], number, body["ring_timeout"], float(dial.attrib["timeout"]))
        uuid = f"00000000-0000-0000-0000-{2 * len(self.calls):012x}"
        child = f"00000000-0000-0000-0000-{2 * len(self.calls) + 1:012x}"
        self.calls.append(PlivoCall(uuid, child, call, body, document.find("Record") is not None))
        if failure == "lost":
            assert request.transport is not None
            request.transport.abort()
        if failure == "broken":
            return web.json_response({"error": "internal"}, status=500)
        return web.json_response({"api_id": "1", "message": "call fired", "request_uuid": uuid}, status=201)

    async def list_calls(self, request: web.Request) -> web.Response:
        self._authorize(request)
        query = request.query
        if query.get("status") == "live":
            number = query.get("to_number") if self.filters else None
            live = [uuid for uuid, leg, _ in self._legs() if leg.ended is None and number in (None, leg.number)]
            return web.json_response({"api_id": "1", "calls": live})
        return web.json_response({"api_id": "1", "meta": {"limit": 20, "offset": 0}, "objects": self._ended(request)})

    async def records(self, request: web.Request) -> web.Response:
        self._authorize(request)
        return web.json_response({"success": True, "data": self._ended(request)})

    async def get(self, request: web.Request) -> web.Response:
        self._authorize(request)
        status = request.query.get("status", "ended")
        for uuid, leg, parent in self._legs():
            stands = "queued" if leg.status == "queued" else "live" if leg.ended is None else "ended"
            if uuid == request.match_info["uuid"] and stands == status:
                if status == "ended" and self.hides_records:
                    continue
                if status == "ended":
                    record = self._record(uuid, leg, parent)
                    return web.json_response({"success": True, "data": record} if self.vobiz else record)
                state = self.status_word or _STATUS.get(leg.status, leg.status)
                began = (leg.created + _INDIA).replace(tzinfo=None) if self.zoneless else leg.created
                live = {"call_uuid": uuid, "call_status": state, "from": self._caller(uuid), "to": leg.number}
                return web.json_response({**live, "direction": "outbound", "session_start": str(began)})
        return web.json_response({"error": "not found"}, status=404)

    async def delete(self, request: web.Request) -> web.Response:
        self._authorize(request)
        for call in self.calls:
            if call.uuid == request.match_info["uuid"] and call.call.legs()[0].ended is None:
                call.call.hang_up()
                return web.Response(status=204)
        return web.json_response({"error": "not found"}, status=404)

    async def recordings(self, request: web.Request) -> web.Response:
        self._authorize(request)
        found = []
        for call in self.calls:
            child = call.call.legs()[1]
            ended = child is not None and child.answered is not None and child.ended is not None
            if call.uuid == request.query["call_uuid"] and call.recorded and ended and call.uuid not in self.deleted:
                link = self.link if self.link != "" else str(request.url.origin()) + "/media.wav"
                found.append({"recording_id": call.uuid, "call_uuid": call.uuid, "recording_url": link})
        return web.json_response({"api_id": "1", "meta": {}, "objects": found})

    async def delete_recording(self, request: web.Request) -> web.Response:
        self._authorize(request)
        self.deleted.append(request.match_info["uuid"])
        return web.Response(status=204)

    async def number(self, request: web.Request) -> web.Response:
        self._authorize(request)
        return web.json_response({"number": str(CALLER_ID)})

    async def media(self, request: web.Request) -> web.StreamResponse:
        self._authorize(request)
        return web.FileResponse(CONVERSATIONS / "callback.wav")

    def _legs(self) -> list[tuple[str, FakeLeg, str | None]]:
        found: list[tuple[str, FakeLeg, str | None]] = []
        for call in self.calls:
            agent, customer = call.call.legs()
            found.append((call.uuid, agent, None))
            if customer is not None:
                found.append((call.child_uuid, customer, call.uuid))
        return found

    def _caller(self, uuid: str) -> str:
        return next(str(call.body["from"]) for call in self.calls if uuid in (call.uuid, call.child_uuid))

    def _ended(self, request: web.Request) -> list[dict[str, Any]]:
        query = request.query
        return [
            self._record(uuid, leg, parent)
            for uuid, leg, parent in self._legs()
            if leg.ended is not None
            and not self.hides_records
            and (not self.filters or query.get("parent_call_uuid", parent) == parent)
            and (not self.filters or query.get("to_number", leg.number) == leg.number)
        ]

    def _record(self, uuid: str, leg: FakeLeg, parent: str | None) -> dict[str, Any]:
        assert leg.ended is not None
        talk = int((leg.ended - leg.answered).total_seconds()) if leg.answered else 0
        cause, source = _CAUSES[leg.status], "Caller" if leg.status == "completed" else "Carrier"
        times = _time(leg.created), leg.answered and _time(leg.answered), _time(leg.ended)
        shared = {"end_time": times[2], "answer_time": times[1], "hangup_cause_name": cause, "hangup_source": source}
        if self.vobiz:
            numbers = {"caller_id_number": f"+{self._caller(uuid)}", "destination_number": f"+{leg.number}"}
            return {**shared, **numbers, "uuid": uuid, "bridge_uuid": parent, "start_time": times[0], "billsec": talk}
        numbers = {"from_number": self._caller(uuid), "to_number": leg.number}
        more = {"call_uuid": uuid, "parent_call_uuid": parent, "initiation_time": times[0], "bill_duration": talk}
        return {**shared, **numbers, **more}

    def _authorize(self, request: web.Request) -> None:
        if self.vobiz:
            sent = request.headers.get("X-Auth-ID", ""), request.headers.get("X-Auth-Token", "")
        else:
            text = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            sent = text.partition(":")[0], text.partition(":")[2]
        if sent != (AUTH_ID, AUTH_TOKEN):
            raise web.HTTPUnauthorized


def _time(time: datetime) -> str:
    return str(time.replace(microsecond=0))
