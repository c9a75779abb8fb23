"""A template: how a REST service is asked to connect two numbers, and how its answers are read.

It is TOML with plain placeholders, as `{customer}`. Nothing in it is executed.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.numbers import Callee, NumberFormat, PhoneNumber
from app.telephony.base import CallStatus

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NUMBERS = ("max_seconds", "agent_ring_seconds", "customer_ring_seconds")
ORDER_NAMES = ("customer", "agent", "caller_id", "call_id", "notify_url", *_NUMBERS)
CALL_NAMES = ("reference", "call_id")
_LAST_TEN = 10

Word = Literal["ringing", "in_progress", "completed", "busy", "no_answer", "failed", "canceled", "ended", "ignore"]
Spelling = Literal["e164", "digits", "national", "last10"]


class TemplateError(Exception):
    """The template cannot be used. The text names the file and the key or line."""


class MissingValue(Exception):
    """A call has no value for a placeholder that needs one. The text is its name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(_Part):
    """One request. `path` follows `url`."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: str
    json_body: dict[str, Any] | None = Field(None, alias="json")
    form: dict[str, str] | None = None


class Order(Request):
    reference: str
    """Dotted path of the call's reference in the answer, as `data.call.id` or `calls.0.id`."""
    accepted: dict[str, str | bool | int] = {}
    """Dotted paths and the value that each has if the order was accepted, for services that refuse with 200."""
    busy_statuses: list[int] = []
    """HTTP statuses besides 429 that mean: too many calls, try again later."""
    busy_words: list[str] = []
    """Texts in a refusal that mean the same."""


class Ask(Request):
    """How a call is asked about. All but the paths of the request are dotted paths in `call`."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    call: str = ""
    status: str
    agent_status: str | None = None
    customer_status: str | None = None
    answered_at: str | None = None
    ended_at: str | None = None
    talk_seconds: str | None = None
    recording: str | None = None


class Auth(_Part):
    """Basic auth. Tokens go into `headers`."""

    username: str
    password: str = ""


class Spellings(_Part):
    customer: Spelling = "e164"
    agent: Spelling = "e164"
    caller_id: Spelling = "e164"


class Template(_Part):
    name: str
    url: str = Field(pattern=r"^https?://")
    timezone: str = "UTC"
    values: dict[str, str] = {}
    """Names that the options must give a value, and what each is."""
    headers: dict[str, str] = {}
    auth: Auth | None = None
    numbers: Spellings = Spellings()
    poll_seconds: float = Field(10.0, gt=0)
    dual_channel: bool = False
    order: Order
    ask: Ask | None = None
    cancel: Request | None = None
    status: dict[str, Word] = {}
    """What the service's words mean. Compared in lower case."""


def read_template(path: Path) -> Template:
    """Raises `TemplateError` and OSError."""
    try:
        template = Template.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path.name}: {error}") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise TemplateError(f"{path.name}: {'; '.join(faults)}") from None
    for key, text, allowed in _texts(template):
        for name in _PLACEHOLDER.findall(text):
            if name not in allowed:
                raise TemplateError(f"{path.name}: {key}: there is no {{{name}}} here. Use one of {', '.join(allowed)}")
    if template.ask is not None and not template.status:
        raise TemplateError(f"{path.name}: status: [ask] needs a table of the service's words")
    return template


def _texts(template: Template) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every text that may hold placeholders: its key, itself, and the names that it may hold."""
    values = tuple(template.values)
    for name, text in template.headers.items():
        yield f"headers.{name}", text, values
    if template.auth is not None:
        yield "auth.username", template.auth.username, values
        yield "auth.password", template.auth.password, values
    for key, request, names in (
        ("order", template.order, ORDER_NAMES),
        ("ask", template.ask, CALL_NAMES),
        ("cancel", template.cancel, CALL_NAMES),
    ):
        if request is not None:
            yield f"{key}.path", request.path, (*names, *values)
            for body_name, body in (("json", request.json_body), ("form", request.form)):
                yield from ((where, text, (*names, *values)) for where, text in _leaves(f"{key}.{body_name}", body))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(f"{key}.{place}", inner)


def spell(number: Callee, spelling: Spelling, home_country: str) -> str:
    """The number as the service wants it."""
    if not isinstance(number, PhoneNumber):
        return number.digits
    if spelling == "last10":
        return number.digits[-_LAST_TEN:]
    return number.format(NumberFormat(spelling), home_country)


def fill(text: str, values: Mapping[str, str | int | None], *, in_path: bool = False) -> str:
    """The text with its placeholders replaced. Raises `MissingValue`."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        if found is None:
            raise MissingValue(match[1])
        return quote(str(found), safe="") if in_path else str(found)

    return _PLACEHOLDER.sub(value, text)


def fill_body(body: Any, values: Mapping[str, str | int | None]) -> Any:
    """A body with its placeholders replaced. A field that is only a placeholder keeps the type of its value. Without
    a value it is left out, because not every call has a caller ID or a notification address."""
    if isinstance(body, str):
        whole = _PLACEHOLDER.fullmatch(body)
        return values.get(whole[1]) if whole else fill(body, values)
    if isinstance(body, Mapping):
        filled = {name: fill_body(value, values) for name, value in body.items()}
        return {name: value for name, value in filled.items() if value is not None}
    if isinstance(body, list):
        return [fill_body(value, values) for value in body]
    return body


def find(body: Any, path: str | None) -> Any | None:
    """What is at a dotted path, or None. Numbers are places in a list. An empty path is everything."""
    for part in path.split(".") if path else []:
        if isinstance(body, Mapping):
            body = body.get(part)
        elif isinstance(body, list) and part.isdecimal() and int(part) < len(body):
            body = body[int(part)]
        else:
            return None
    return body


STATUSES = {word: CallStatus(word) for word in ("completed", "busy", "no_answer", "failed", "canceled", "ended")}
"""Words of a template that are an end."""
