"""The newest dialect, `/api`: another system reports a call."""

import base64
import binascii
import hmac
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.datastructures import Headers
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from app import accounts, reports, tasks, vendor
from app.api.deps import Resources, is_json, media_type, read_raw_body, resources, schema_of
from app.api.envelope import Envelope, ErrorEnvelope, explain, success
from app.api.schemas import CallbackUrl, Number, StorableText, errors
from app.errors import InvalidRequest, MissingAuth, ValidationFailed
from app.reports import Report

router = APIRouter(prefix="/api", tags=["current"])


_NOTHING = {"", "-", "null", "none", "nil", "na", "n/a"}
"""What systems write where they have nothing to say."""


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in _NOTHING)


def _or_none(value: Any) -> Any:
    return None if _is_nothing(value) else value


def _text(value: Any) -> Any:
    value = _or_none(value)
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _seconds(value: Any) -> int | None:
    """Kept as text until here, because JSON numbers, digits, decimals and `00:01:05` are all seen."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be seconds, or hours:minutes:seconds")
    parts = [part.partition(".")[0] for part in value.strip().split(":")]
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError("must be seconds, or hours:minutes:seconds")
    if any(len(part) > 9 for part in parts):
        raise ValueError("is too long")
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    if seconds >= 2**31:
        raise ValueError("is too long")
    return seconds


Text = Annotated[Annotated[StorableText, Field(max_length=500)] | None, BeforeValidator(_text)]
OptionalNumber = Annotated[Number | None, BeforeValidator(_text)]
Duration = Annotated[
    int | None,
    BeforeValidator(_seconds),
    BeforeValidator(_text),
    Field(description="Seconds, or hours:minutes:seconds", examples=[61]),
]


class CallLogRequest(BaseModel):
    """Names are read without regard to case, blanks and underscores."""

    customer_number: Annotated[Number, BeforeValidator(_text)]
    status: Annotated[StorableText, BeforeValidator(_text), Field(max_length=100, examples=["Answered"])]
    recording: Annotated[CallbackUrl | None, BeforeValidator(_or_none)] = None
    agent_number: OptionalNumber = None
    did: OptionalNumber = None
    call_date: Text = None
    duration: Duration = None
    answer_duration: Duration = None
    call_type: Text = None
    customer_crm_id: Annotated[Text, Field(description="The `call_id` of a call of this server")] = None
    hangup_cause: Text = None

    def report(self) -> Report:
        """For the domain."""
        return Report(
            customer_number=self.customer_number,
            status=self.status,
            call_id=self.customer_crm_id,
            agent_number=self.agent_number,
            did=self.did,
            call_type=self.call_type,
            call_date=self.call_date,
            seconds=self.duration,
            talk_seconds=self.answer_duration,
            hangup_cause=self.hangup_cause,
            recording_url=self.recording,
        )


_FIELDS = {name.replace("_", ""): name for name in CallLogRequest.model_fields}
_ALIASES = {"agennumber": "agent_number", "virtualnumber": "did"}


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
    """For telephony providers and partners, who log in by `X-Greeter-Username` and `X-Greeter-Password`, Basic,
    `?auth_user=&auth_pass=`, `X-API-Key` or a bearer token; with the last two they report their own calls only. The
    first end that is reported counts; a repeat only fills in what was not known, and a late report replaces
    `temporaryfailed`."""
    house = resources(request)
    user_id = await _reporter(request, house)
    fields = await _fields(request)
    try:
        report = CallLogRequest.model_validate(fields).report()
    except ValidationError as error:
        raise ValidationFailed(explain(error.errors(include_input=False, include_url=False))) from None
    async with tasks.transaction(house.db, house.hints) as session:
        call = await reports.take(session, user_id, report, house.settings)
    data = CallLogData(
        call_id=call.id,
        status=vendor.SHOWN_STATUS[call.status],
        recording=call.recording_url,  # never a link to ours: who reports a call need not be whose it is
    )
    return success("Call log stored", data)


async def _reporter(request: Request, house: Resources) -> str | None:
    """Who reports: a user by token or key; None: the telephony provider.

    Raises `MissingAuth`, `InvalidToken`, `InactiveUser`, `TooManyAttempts`.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        claims = house.tokens.read_access(credentials.strip())
        await accounts.check_login(house.db, claims)
        return claims.user_id
    if (key := request.headers.get("X-API-Key")) is not None:
        return await accounts.user_of_api_key(house.db, key)
    given = _name_and_password(request, scheme.lower(), credentials)
    if given is None:
        raise MissingAuth
    settings = house.settings
    name, password = given
    address = request.client.host if request.client else None
    account = f"call-log {name}"  # and no user's e-mail
    await house.throttle.check(account, address)
    if settings.provider_username is None or settings.provider_password is None:
        raise MissingAuth("Invalid auth credentials: this server has no RINGBACK_PROVIDER_USERNAME and _PASSWORD")
    right = (_alike(name, settings.provider_username), _alike(password, settings.provider_password.get_secret_value()))
    if not all(right):
        await house.throttle.record_failure(account, address)
        raise MissingAuth("Invalid auth credentials")
    return None


def _name_and_password(request: Request, scheme: str, credentials: str) -> tuple[str, str] | None:
    if "X-Greeter-Username" in request.headers or "X-Greeter-Password" in request.headers:
        return request.headers.get("X-Greeter-Username", ""), request.headers.get("X-Greeter-Password", "")
    if scheme == "basic":
        try:
            name, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password
    if "auth_user" in request.query_params or "auth_pass" in request.query_params:
        return request.query_params.get("auth_user", ""), request.query_params.get("auth_pass", "")
    return None


def _alike(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


async def _fields(request: Request) -> dict[str, Any]:
    """The body's fields by our names. Raises `InvalidRequest` for what cannot be read."""
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
    except (ValueError, RecursionError, MultiPartException, KeyError) as error:
        raise InvalidRequest("The body cannot be read") from error
    if not isinstance(sent, dict):
        raise InvalidRequest("The body is not an object")
    fields: dict[str, Any] = {}
    for key, value in sent.items():
        name = _field(str(key))
        if name is not None and not (name in fields and _is_nothing(value)):  # a blank alias hides nothing
            fields[name] = value
    return fields


def _field(key: str) -> str | None:
    plain = key.casefold().replace("_", "").replace(" ", "")
    return _ALIASES.get(plain) or _FIELDS.get(plain)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
    yield b""
