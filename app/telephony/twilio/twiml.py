"""The instructions for a call, in Twilio's markup. Pure."""

from math import ceil
from xml.sax.saxutils import escape, quoteattr

from app.telephony.base import CallOrder

CONTENT_TYPE = "application/xml"

_EVENTS = "ringing answered completed"
_SHORTEST_RING_SECONDS = 5
"""The least that `<Dial>` accepts."""


def dial_document(
    order: CallOrder, *, customer: str, caller_id: str | None, announcement: str | None, whisper: str | None
) -> str:
    """The document that dials the customer once the agent has answered. The recording begins with the customer's
    answer. `whisper` is the URL of a document that the customer hears first."""
    dial = {
        "timeout": str(max(_SHORTEST_RING_SECONDS, ceil(order.customer_ring_seconds))),
        "timeLimit": seconds(order.max_call_seconds),
    }
    number = {}
    if caller_id is not None:
        dial["callerId"] = caller_id
    if order.record:
        dial["record"] = "record-from-answer-dual"
    if whisper is not None:
        number["url"] = whisper
    if order.notify_url is not None:
        number |= {"statusCallback": order.notify_url, "statusCallbackEvent": _EVENTS}
        if order.record:
            dial["recordingStatusCallback"] = order.notify_url
    play = "" if announcement is None else f"<Play>{escape(announcement)}</Play>"
    target = f"<Number{_attributes(number)}>{escape(customer)}</Number>"
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{play}<Dial{_attributes(dial)}>{target}</Dial></Response>'


def seconds(limit: float) -> str:
    """A limit in whole seconds, at least one."""
    return str(max(1, ceil(limit)))


def _attributes(values: dict[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in values.items())
