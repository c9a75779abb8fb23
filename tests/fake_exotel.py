"""A server with the shape of Exotel's API, because the real one needs an account in India.

Hand-written after Exotel's pages: Voice v1 (connect two numbers, call details, bulk call details, balance), Voice v3
(call legs) and ExoPhones. Two of the unofficial Python clients read its answers (`tests/integration/test_exotel.py`).
What the pages leave open is as inconvenient as they allow: a call is `in-progress` from its order on, `completed` if
only the agent answered, and not listed before it has ended. Recordings are on a store that takes no credentials.
"""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import av
from aiohttp import encode_basic_auth, web

from app.numbers import NumberFormat, NumberRules
from app.telephony.simulator import CONVERSATIONS

SID, KEY, TOKEN = "acme1", "a key", "a token"
EXOPHONE = "918047112345"
AGENT, CUSTOMER, PATIENT_CUSTOMER = "919811000001", "919820000001", "919820000002"
BUSY, NEVER, UNREACHABLE = "919820000003", "919820000004", "919820000005"

_ZONE = ZoneInfo("Asia/Kolkata")
_RULES = NumberRules("IN")
_RING, _TALK, _LONG_TALK = 0.1, 0.3, 3600.0
_MOST_SECONDS = 14400
_REFUSALS = {BUSY: "busy", NEVER: "no-answer", UNREACHABLE: "failed"}


@dataclass
class FakeExotelLeg:
    number: str
    status: str | None = None
    dialed_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass
class FakeExotelCall:
    form: dict[str, str]
    agent: FakeExotelLeg
    customer: FakeExotelLeg
    sid: str = field(default_factory=lambda: secrets.token_hex(16))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    joined_at: datetime | None = None
    ended_at: datetime | None = None
    recording: bytes = b""

    @property
    def status(self) -> str:
        if self.ended_at is None:
            return "in-progress"
        return "completed" if self.agent.status == "completed" else self.agent.status or "failed"

    @property
    def talk_seconds(self) -> int:
        return int((self.ended_at - self.joined_at).total_seconds()) if self.ended_at and self.joined_at else 0


Carrier = Callable[[FakeExotelCall], Awaitable[None]]
"""Makes a call: dials its legs, and writes into it what happens."""


async def scripted(call: FakeExotelCall) -> None:
    """Dials nobody. Calls follow the clock, and the numbers above say how they go."""
    for leg in (call.agent, call.customer):
        leg.dialed_at, leg.status = datetime.now(UTC), "in-progress"
        await asyncio.sleep(_RING)
        if refusal := _REFUSALS.get(leg.number):
            leg.status = refusal
            leg.ended_at = call.ended_at = datetime.now(UTC)
            call.agent.status = "completed" if leg is call.customer else refusal
            return
    call.joined_at = datetime.now(UTC)
    await asyncio.sleep(_LONG_TALK if call.customer.number == PATIENT_CUSTOMER else _TALK)
    call.agent.status = call.customer.status = "completed"
    call.recording = to_mp3((CONVERSATIONS / "callback.wav").read_bytes())
    call.agent.ended_at = call.customer.ended_at = call.ended_at = datetime.now(UTC)


def to_mp3(wav: bytes) -> bytes:
    """The recording in the format of Exotel's, with its channels."""
    mp3 = io.BytesIO()
    with av.open(io.BytesIO(wav), "r") as source, av.open(mp3, "w", format="mp3") as target:
        stream = target.add_stream("libmp3lame", rate=8000, layout="stereo")
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=8000)
        frames = [*source.decode(audio=0), None]
        for frame in frames:
            for part in resampler.resample(frame):
                target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    return mp3.getvalue()


class FakeExotel:
    """The server, and the ways in which it can misbehave."""

    def __init__(self, carrier: Carrier = scripted) -> None:
        self.calls: dict[str, FakeExotelCall] = {}
        self.url = self.store_url = ""
        self.loses_answers = False
        self.refuses_with: tuple[int, Any, dict[str, str]] | None = None
        """Status, body and headers that every request gets."""
        self.has_recordings = True
        self.signs_links = True
        self.forgets_links = False
        self.is_settled = True
        """Whether the details of ended calls are complete."""
        self.has_legs = True
        self.status_word: str | None = None
        self.balance = "1543.75"
        self.leaked_credentials = 0
        self.failures: list[Exception] = []
        """Of the carrier."""
        self._carrier = carrier
        self._dialing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeExotel"]:
        api, store = web.Application(middlewares=[self._guard]), web.Application()
        account = f"/v1/Accounts/{SID}"
        api.add_routes(
            [
                web.post(f"{account}/Calls/connect.json", self._connect),
                web.get(f"{account}/Calls.json", self._list),
                web.get(f"{account}/Calls/{{sid}}.json", self._details),
                web.get(f"{account}/Balance.json", self._balance),
                web.get(f"/v2_beta/Accounts/{SID}/IncomingPhoneNumbers", self._exophones),
                web.get(f"/v3/accounts/{SID}/calls/{{sid}}/legs", self._legs),
                web.get("/recordings/{sid}.mp3", self._recording),
            ]
        )
        store.add_routes([web.get("/recordings/{sid}.mp3", self._stored)])
        runners = web.AppRunner(api), web.AppRunner(store)
        urls = []
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls.append("http://{}:{}".format(*runner.addresses[0][:2]))
        self.url, self.store_url = urls
        try:
            yield self
        finally:
            for task in self._dialing:
                task.cancel()
            await asyncio.gather(*self._dialing, return_exceptions=True)
            for runner in runners:
                await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != encode_basic_auth(KEY, TOKEN):
            return _refusal(401, "Authentication failed", 20003)
        if self.refuses_with is not None:
            status, body, headers = self.refuses_with
            return web.json_response(body, status=status, headers=headers)
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except web.HTTPNotFound:
            return _refusal(404, "The requested resource was not found", 1017)

    async def _connect(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        for name in ("From", "To", "CallerId"):
            if not form.get(name):
                return _refusal(400, f"Mandatory Parameter missing: {name}", 34001)
        try:
            agent, customer, exophone = (_RULES.read(form[name]).digits for name in ("From", "To", "CallerId"))
        except ValueError:
            return _refusal(400, "From, To or CallerId is not a number", 34002)
        if exophone != EXOPHONE:
            return _refusal(400, f"CallerId {form['CallerId']} does not belong to this account", 34009)
        if int(form.get("TimeLimit", 0)) > _MOST_SECONDS:
            return _refusal(400, "TimeLimit is too long", 34010)
        call = FakeExotelCall(form, FakeExotelLeg(agent), FakeExotelLeg(customer))
        self.calls[call.sid] = call
        dialing = asyncio.create_task(self._dial(call))
        self._dialing.add(dialing)
        dialing.add_done_callback(self._dialing.discard)
        if self.loses_answers:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"Call": self._told(call, settled=False)})

    async def _dial(self, call: FakeExotelCall) -> None:
        try:
            await self._carrier(call)
        except Exception as error:
            self.failures.append(error)
            raise

    async def _details(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["sid"])
        if call is None:
            return _refusal(404, "The requested resource was not found", 34014)
        if not 5 <= int(request.query.get("RecordingUrlValidity", 5)) <= 60:
            return _refusal(400, "RecordingUrlValidity must be 5 to 60", 34015)
        told = self._told(call, settled=self.is_settled)
        if request.query.get("details") == "true":
            told["Details"] = self._legs_of(call)
        return web.json_response({"Call": told})

    async def _list(self, request: web.Request) -> web.Response:
        """Its pages are as long as asked for. The next begins after the call that `After` names."""
        first, last = _range(request.query.get("DateCreated"))
        ended = [call for call in self.calls.values() if call.ended_at and first <= _written(call.created_at) <= last]
        ended.sort(key=lambda call: call.created_at, reverse=request.query.get("SortBy") != "DateCreated:asc")
        after = request.query.get("After")
        if after is not None:
            ended = ended[[call.sid for call in ended].index(after) + 1 :]
        size = int(request.query.get("PageSize", 50))
        page, more = ended[:size], len(ended) > size
        query = {**request.query, "After": page[-1].sid} if page else {}
        following = str(request.rel_url.with_query(query)) if more else None
        return web.json_response(
            {
                "Metadata": {"Total": len(ended), "PageSize": size, "PrevPageUri": None, "NextPageUri": following},
                "Calls": [self._told(call, settled=self.is_settled) for call in page],
            }
        )

    async def _balance(self, request: web.Request) -> web.Response:
        data = {"Balance": self.balance, "Currency": "INR", "PricingPlan": "Pay As You Go"}
        return web.json_response({"Account": {"AccountSid": SID, "BalanceData": data}})

    async def _exophones(self, request: web.Request) -> web.Response:
        exophone = {"sid": "08047112345", "phone_number": f"+{EXOPHONE}", "friendly_name": "Sales", "country": "IN"}
        page = {"page": 0, "page_size": 50, "next_page_uri": None, "previous_page_uri": None}
        return web.json_response({**page, "incoming_phone_numbers": [exophone]})

    async def _legs(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["sid"])
        answer: dict[str, Any] = {"request_id": secrets.token_hex(16), "method": "GET"}
        if not self.has_legs or call is None:
            code = 10744 if self.has_legs else 1017
            error = {"code": code, "description": "Call not found" if self.has_legs else "Tenant not found"}
            inner = {"code": 404, "error_data": error, "status": "failure", "leg_details": None}
            return web.json_response({**answer, "http_code": 404, "response": inner}, status=404)
        told = {"call_sid": call.sid, "from": _leg(call.agent), "to": _leg(call.customer)}
        inner = {"code": 200, "error_data": None, "status": "success", "leg_details": told}
        return web.json_response({**answer, "http_code": 200, "response": inner})

    async def _recording(self, request: web.Request) -> web.Response:
        return web.Response(body=self.calls[request.match_info["sid"]].recording, content_type="audio/mpeg")

    async def _stored(self, request: web.Request) -> web.Response:
        if "Authorization" in request.headers:
            self.leaked_credentials += 1
            return web.Response(status=400, text="Only one auth mechanism allowed")
        if self.forgets_links or request.query.get("X-Amz-Signature") != "signed":
            return web.Response(status=403, text="Request has expired")
        call = self.calls[request.match_info["sid"]]
        return web.Response(body=call.recording, content_type="binary/octet-stream")

    def _told(self, call: FakeExotelCall, *, settled: bool) -> dict[str, Any]:
        ended = call.ended_at is not None
        told: dict[str, Any] = {
            "Sid": call.sid,
            "ParentCallSid": None,
            "DateCreated": _written(call.created_at),
            "DateUpdated": _written(call.ended_at or call.created_at),
            "AccountSid": SID,
            "To": _national(call.customer.number),
            "From": _national(call.agent.number),
            "PhoneNumberSid": _national(EXOPHONE),
            "Status": self.status_word or call.status,
            "StartTime": _written(call.created_at),
            "EndTime": _written(call.ended_at) if call.ended_at and settled else None,
            "Duration": None,
            "Price": None,
            "Direction": "outbound-api",
            "AnsweredBy": None,
            "ForwardedFrom": None,
            "CallerName": None,
            "Uri": f"/v1/Accounts/{SID}/Calls.json/{call.sid}",
            "RecordingUrl": None,
        }
        if ended and call.form.get("Record") == "true":
            told["RecordingUrl"] = "null"
            if call.recording and self.has_recordings:
                host = self.store_url if self.signs_links else self.url
                told["RecordingUrl"] = f"{host}/recordings/{call.sid}.mp3"
                if self.signs_links:
                    told["PreSignedRecordingUrl"] = f"{told['RecordingUrl']}?X-Amz-Expires=1800&X-Amz-Signature=signed"
        return told

    def _legs_of(self, call: FakeExotelCall) -> dict[str, Any]:
        if call.ended_at is None or not self.is_settled:
            return {"ConversationDuration": None, "Leg1Status": None, "Leg2Status": None, "Legs": []}
        legs = [{"Leg": {"Id": place, "OnCallDuration": call.talk_seconds}} for place in (1, 2)]
        return {
            "ConversationDuration": call.talk_seconds,
            "Leg1Status": call.agent.status,
            "Leg2Status": call.customer.status,
            "Legs": legs,
        }


def _refusal(status: int, message: str, code: int) -> web.Response:
    return web.json_response({"RestException": {"Status": status, "Message": message, "Code": code}}, status=status)


def _leg(leg: FakeExotelLeg) -> list[dict[str, Any]]:
    if leg.dialed_at is None:
        return []
    status = "no-answer" if leg.status == "busy" else leg.status  # v3 has no word for busy
    at = _written(leg.dialed_at) + "+05:30"
    return [{"sid": secrets.token_hex(16), "contact_uri": _national(leg.number), "date_created": at, "status": status}]


def _range(written: str | None) -> tuple[str, str]:
    """Times in this form compare as texts."""
    limits = dict(part.split(":", 1) for part in (written or "").split(";") if part)
    return limits.get("gte", ""), limits.get("lte", "9999")


def _written(at: datetime) -> str:
    return at.astimezone(_ZONE).strftime("%Y-%m-%d %H:%M:%S")


def _national(digits: str) -> str:
    return _RULES.read(f"+{digits}").format(NumberFormat.NATIONAL, "IN")
