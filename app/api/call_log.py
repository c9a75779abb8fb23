"""The newest dialect, `/api`: reports of calls by another system."""

import base64
import hmac
import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from starlette.datastructures import Headers
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from app import accounts, report_fields, reports, vendor
from app.api.deps import is_json, media_type, schema_of
from app.api.envelope import Envelope, ErrorEnvelope, explain, success
from app.api.schemas import CallbackUrl, Number, StorableText, check_text, errors, number_rules
from app.errors import InvalidRequest, MissingAuth, ValidationFailed
from app.numbers import Callee, NumberRules, PhoneNumber
from app.reports import CallLogReport
from app.telephony.base import Leg
from app.web.bodies import read_raw_body
from app.web.resources import Resources, get_resources

T = TypeVar("T")
_SENT_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))
_SERVER = re.compile(r"[^/?#]*(?://[^/?#]*)?")

router = APIRouter(prefix="/api", tags=["current"])


_NOTHING = {"", "-", "null", "none", "nil", "na", "n/a"}
"""What systems write instead of a value that they do not have."""


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in _NOTHING)


def _or_none(value: Any) -> Any:
    return None if _is_nothing(value) else value


def _link(value: Any) -> Any:
    """Make the link usable. Systems build links from file names with blanks and umlauts, so what a request cannot
    contain is escaped. A signed link stays as it is. The host name is not escaped, because that would name another
    server."""
    value = _or_none(value)
    if not isinstance(value, str) or not _storable(value):
        return value
    value = value.strip()
    server = _SERVER.match(value)
    end = server.end() if server else 0
    return value[:end] + quote(value[end:], safe=_SENT_AS_IT_IS)


def _storable(text: str) -> bool:
    return text.isprintable() and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _text(value: Any) -> Any:
    value = _or_none(value)
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _nothing_or(read: Callable[[str, ValidationInfo], T]) -> Callable[[Any, ValidationInfo], T | None]:
    """Read an optional field, which systems fill in many ways."""

    def read_optional(value: Any, info: ValidationInfo) -> T | None:
        text = _text(value)
        return None if text is None else read(check_text(text), info)

    return read_optional


def _date(text: str, info: ValidationInfo) -> str:
    return report_fields.read_date(text, day_first=report_fields.is_day_first(number_rules(info).home_country))


_DURATION = "Seconds, hours:minutes:seconds, or with units: `1m 23s`"
_DATE = "When the call was. Reports with the same date are about the same call"
_LEG = "The leg that the report is about, agent or customer; absent: the whole call"

Text = Annotated[Annotated[StorableText, Field(max_length=500)] | None, BeforeValidator(_text)]
Duration = Annotated[
    int | None,
    PlainValidator(_nothing_or(lambda text, _: report_fields.read_seconds(text))),
    WithJsonSchema({"type": ["string", "integer", "null"], "description": _DURATION, "examples": ["61"]}),
]
CallDate = Annotated[
    str | None,
    PlainValidator(_nothing_or(_date)),
    WithJsonSchema({"type": ["string", "null"], "description": _DATE, "examples": ["2026-03-05 10:00:00"]}),
]
ReportedDid = Annotated[
    PhoneNumber | None,
    PlainValidator(_nothing_or(lambda text, info: number_rules(info).read(text))),
    WithJsonSchema({"type": ["string", "null"], "description": "Your number", "examples": ["911140000001"]}),
]
ReportedAgent = Annotated[
    Callee | None,
    PlainValidator(_nothing_or(lambda text, info: number_rules(info).read_agent(text))),
    WithJsonSchema(
        {"type": ["string", "null"], "description": "A number or an extension", "examples": ["918888888888", "101"]}
    ),
]
ReportedLeg = Annotated[
    Leg | None,
    PlainValidator(_nothing_or(lambda text, _: report_fields.read_leg(text))),
    WithJsonSchema({"type": ["string", "null"], "description": _LEG, "examples": ["customer"]}),
]


class CallLogRequest(BaseModel):
    """Field names are read in any case and punctuation. `customer_number` and `status` are required. If another field
    cannot be read, it is left out and noted in the call's history."""

    customer_number: Annotated[Number, BeforeValidator(_text)]
    status: Annotated[StorableText, BeforeValidator(_text), Field(max_length=100, examples=["Answered"])]
    recording: Annotated[CallbackUrl | None, BeforeValidator(_link)] = None
    agent_number: ReportedAgent = None
    did: ReportedDid = None
    call_date: CallDate = None
    duration: Duration = None
    answer_duration: Duration = None
    call_type: Text = None
    customer_crm_id: Annotated[Text, Field(description="The `call_id` of a call of this server")] = None
    hangup_cause: Text = None
    leg: ReportedLeg = None


class _OfKnownCall(CallLogRequest):
    """A report whose `customer_crm_id` names a call, whose customer is known."""

    customer_number: Annotated[Number | None, BeforeValidator(_text)] = None  # type: ignore[assignment]


def _read_report(fields: dict[str, Any], rules: NumberRules) -> CallLogReport:
    """Read the report. Raises `ValidationFailed` for what is not a report."""
    notes: list[str] = []
    try:
        request = CallLogRequest.model_validate(fields, context=rules)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        unreadable = {str(fault["loc"][0]) for fault in faults}
        is_of_known_call = bool(_text(fields.get("customer_crm_id"))) and "customer_crm_id" not in unreadable
        needed = {"status"} if is_of_known_call and not _is_nothing(fields.get("customer_number")) else _REQUIRED
        if refused := [fault for fault in faults if str(fault["loc"][0]) in needed]:
            raise ValidationFailed(explain(refused)) from None
        notes = [f"Left out of a report: {_fault(fault)}" for fault in faults]
        readable = {name: value for name, value in fields.items() if name not in unreadable}
        request = _OfKnownCall.model_validate(readable, context=rules)
    return CallLogReport(
        customer_number=request.customer_number,
        status=request.status,
        call_id=request.customer_crm_id,
        agent_number=request.agent_number,
        did=request.did,
        call_type=request.call_type,
        call_date=request.call_date,
        seconds=request.duration,
        talk_seconds=request.answer_duration,
        hangup_cause=request.hangup_cause,
        recording_url=request.recording,
        leg=request.leg,
        notes=tuple(notes),
    )


def _fault(fault: Any) -> str:
    """What is wrong, with the text that was sent. Numbers and links are not quoted, because logs must not
    contain them."""
    text = explain([fault])
    if str(fault["loc"][0]) in _NOT_QUOTED:
        return text
    return f"{text}. It was “{str(fault['input'])[:60].encode('utf-8', 'replace').decode()}”".replace("\0", " ")


_REQUIRED = {"customer_number", "status"}
_NOT_QUOTED = {"customer_number", "agent_number", "did", "recording"}
_FIELDS = {name.replace("_", ""): name for name in CallLogRequest.model_fields}
_ALIASES = {"agennumber": "agent_number", "virtualnumber": "did", "callleg": "leg", "legtype": "leg"}


class CallLogData(BaseModel):
    call_id: str = Field(examples=["call_ab12cd34ef56gh78"])
    status: str = Field(examples=["Answered"])
    recording: str | None = Field(
        description="As it was reported", examples=["https://pbx.example.com/recordings/42.wav"]
    )


def _documented() -> dict[str, Any]:
    schema = schema_of(CallLogRequest)
    kinds = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


@router.post(
    "/calls/call-log",
    summary="Report a call",
    response_model=Envelope[CallLogData],
    responses={
        **errors(400, 403, 404, 413, 422, 429),
        401: {"model": ErrorEnvelope, "description": "Missing or wrong credentials"},
    },
    openapi_extra=_documented(),
)
async def call_log(request: Request) -> Response:
    """For telephony providers and partners. They log in by `X-Greeter-Username` and `X-Greeter-Password`, Basic,
    `?auth_user=&auth_pass=`, `X-API-Key` or a bearer token. With a key or a token they can report only their own calls.
    The first reported end counts. A repeated report only adds what was not known, and a late report replaces
    `temporaryfailed`."""
    resources = get_resources(request)
    user_id = await _reporter(request, resources)
    fields = await _fields(request)
    report = _read_report(fields, resources.numbers)
    async with resources.db.transaction() as session:
        call = await reports.apply_report(session, user_id, report, resources.settings)
    data = CallLogData(
        call_id=call.id,
        status=vendor.SHOWN_STATUS[call.status],
        recording=call.recording_url,  # never a link to our copy: the system that reports need not be the owner
    )
    return success("Call log stored", data)


async def _reporter(request: Request, resources: Resources) -> str | None:
    """Who reports: a user, by token or key, or None for the telephony provider.

    Raises `MissingAuth`, `InvalidToken`, `InactiveUser`, `TooManyAttempts`.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        claims = resources.tokens.read_access(credentials.strip())
        await accounts.check_login(resources.db, claims)
        return claims.user_id
    if (key := request.headers.get("X-API-Key")) is not None:
        return await accounts.get_api_key_user(resources.db, key)
    given = _name_and_password(request, scheme.lower(), credentials)
    if given is None:
        raise MissingAuth
    settings = resources.settings
    name, password = given
    address = request.client.host if request.client else None
    account = f"call-log {name}"  # no user's e-mail address looks like this
    known = await resources.throttle.check(account, address)
    if settings.call_log_username is None or settings.call_log_password is None:
        raise MissingAuth("Invalid auth credentials: this server has no RINGBACK_CALL_LOG_USERNAME and _PASSWORD")
    right = (_alike(name, settings.call_log_username), _alike(password, settings.call_log_password.get_secret_value()))
    if not all(right):
        await resources.throttle.record_failure(account, address)
        raise MissingAuth("Invalid auth credentials")
    if not known:
        await resources.throttle.record_success(account, address)
    return None


def _name_and_password(request: Request, scheme: str, credentials: str) -> tuple[str, str] | None:
    if "X-Greeter-Username" in request.headers or "X-Greeter-Password" in request.headers:
        return request.headers.get("X-Greeter-Username", ""), request.headers.get("X-Greeter-Password", "")
    if scheme == "basic":
        try:
            name, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
        except ValueError:  # not base64, or not of text
            return "", ""
        return name, password
    if "auth_user" in request.query_params or "auth_pass" in request.query_params:
        return request.query_params.get("auth_user", ""), request.query_params.get("auth_pass", "")
    return None


def _alike(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


async def _fields(request: Request) -> dict[str, Any]:
    """The body's fields, by our names. Raises `InvalidRequest` if it cannot be read."""
    body = await read_raw_body(request)
    kind = media_type(request)
    try:
        if is_json(request):
            sent = json.loads(body)
        elif kind == "application/x-www-form-urlencoded":
            sent = dict(await FormParser(request.headers, _once(body)).parse())
        elif kind == "multipart/form-data":
            sent = dict(await MultiPartParser(Headers(raw=request.headers.raw), _once(body)).parse())
        else:
            raise InvalidRequest("Send the call as JSON, urlencoded or multipart/form-data")
    except (ValueError, RecursionError, MultiPartException, LookupError) as error:  # LookupError: an unknown encoding
        raise InvalidRequest("The body cannot be read") from error
    if not isinstance(sent, dict):
        raise InvalidRequest("The body is not an object")
    fields: dict[str, Any] = {}
    for key, value in sent.items():
        name = _field(str(key))
        if name is not None and not (name in fields and _is_nothing(value)):  # a blank alias hides no value
            fields[name] = value
    return fields


def _field(key: str) -> str | None:
    plain = "".join(filter(str.isalnum, key.casefold()))
    return _ALIASES.get(plain) or _FIELDS.get(plain)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
    yield b""
