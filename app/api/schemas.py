"""What requests of both dialects share: numbers, URLs, and documented errors."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.networks import HttpUrl

from app.api.envelope import Detail, ErrorEnvelope
from app.new_calls import NewCall
from app.numbers import Callee, NumberRules, PhoneNumber
from app.outbound import host_of

_LONGEST_URL = 2048
_AS_URL = TypeAdapter(HttpUrl)

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorEnvelope, "description": "Wrong credentials, an inactive user, or an invalid request"},
    401: {"model": Detail, "description": "Missing or invalid access token"},
    403: {"model": ErrorEnvelope, "description": "Somebody else's"},
    404: {"model": ErrorEnvelope, "description": "There is no such thing"},
    409: {"model": ErrorEnvelope, "description": "Not as things stand now"},
    413: {"model": ErrorEnvelope, "description": "A body above 64 KiB"},
    422: {"model": ErrorEnvelope, "description": "An invalid request"},
    429: {"model": ErrorEnvelope, "description": "A limit is reached; `Retry-After` says how long to wait"},
    503: {
        "model": ErrorEnvelope,
        "description": "The database cannot be reached; `Retry-After` says when to try again",
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the documentation of a route."""
    return {status: _ERRORS[status] for status in (*statuses, 503)}


def _check_url(url: str) -> str:
    """The URL is kept as it was sent, because its receiver may distinguish `https://a.example` from
    `https://a.example/`."""
    url = url.strip()
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be an http or https URL of at most {_LONGEST_URL} ASCII characters")
    try:
        _AS_URL.validate_python(url)
        host_of(url)
    except ValueError:
        raise ValueError("must be an http or https URL") from None
    return url


def _check_storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("has characters that are no valid text")
    return text


def _none_is_false(value: Any) -> Any:
    return False if value is None else value


def _blank_is_unset(value: Any) -> Any:
    return None if value == "" else value


UnlessBlank = BeforeValidator(_blank_is_unset)
"""A blank value of a query is not set."""

StorableText = Annotated[str, AfterValidator(_check_storable)]
"""Text that PostgreSQL can store and compare."""

Switch = Annotated[bool, BeforeValidator(_none_is_false)]


def number_rules(info: ValidationInfo) -> NumberRules:
    """The installation's rules, which `read_body` passes as context."""
    assert isinstance(info.context, NumberRules)
    return info.context


def check_text(value: Any) -> str:
    """For validators that replace pydantic's own."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _read_number(value: Any, info: ValidationInfo) -> PhoneNumber:
    return number_rules(info).read(check_text(value))


def _read_agent(value: Any, info: ValidationInfo) -> Callee:
    return number_rules(info).read_agent(check_text(value))


@dataclass(frozen=True, slots=True)
class WrittenNumber:
    """A number, with the client's spelling, which the response repeats."""

    number: PhoneNumber
    written: str


def _read_written(value: Any, info: ValidationInfo) -> WrittenNumber:
    written = check_text(value)
    return WrittenNumber(number_rules(info).read(written), written)


_NUMBER_SCHEMA = {
    "type": "string",
    "description": "One telephone, however it is written: with its country code, or as it is dialed at home",
    "examples": ["919999999999"],
}
_DID_SCHEMA = {"type": "string", "description": "Your number that both are shown", "examples": ["911140000001"]}

Number = Annotated[PhoneNumber, PlainValidator(_read_number), WithJsonSchema(_NUMBER_SCHEMA)]
Agent = Annotated[
    Callee,
    PlainValidator(_read_agent),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A telephone number; or an extension of 2 to 7 digits, where the installation dials those",
            "examples": ["918888888888"],
        }
    ),
]
CallbackUrl = Annotated[
    str,
    AfterValidator(_check_url),
    Field(
        description="Receives callbacks at the call's end and for its transcript",
        examples=["https://crm.example.com/hooks/calls"],
    ),
]
Did = Annotated[PhoneNumber, PlainValidator(_read_number), WithJsonSchema(_DID_SCHEMA)]
WrittenDid = Annotated[WrittenNumber, PlainValidator(_read_written), WithJsonSchema(_DID_SCHEMA)]


class CallOptions(BaseModel):
    """What a client can order about a call, in either dialect."""

    did: WrittenDid | None = None
    callback_url: CallbackUrl | None = None
    transcript_language: Annotated[
        str | None,
        Field(pattern="^[A-Za-z0-9_-]{2,35}$", description="As in `hi`, `hi-IN`, `hi-en`; null: the server's default"),
    ] = None

    record: Annotated[bool | None, Field(description="`false`: no recording is made, and so no transcript")] = True
    after_hours: Annotated[
        Literal["end", "wait"] | None,
        Field(description="Outside calling hours the call ends as `afthrs`, or waits for them"),
    ] = "end"

    def order(
        self, customer_number: PhoneNumber, agent_number: Callee, *, transcript: bool, idempotency_key: str | None
    ) -> NewCall:
        """The order, for the domain."""
        return NewCall(
            customer_number,
            agent_number,
            did=None if self.did is None else self.did.number,
            callback_url=self.callback_url,
            transcript=transcript,
            language=self.transcript_language,
            record=self.record is not False,
            wait_for_hours=self.after_hours == "wait",
            idempotency_key=idempotency_key,
            # What was read, because a client may write the same order in another way when it sends it again.
            body_sha256=hashlib.sha256(repr(self).encode()).hexdigest(),
        )
