"""Traces: one trace follows a call from its order through tasks, provider and recognition to the callbacks.

Off unless `RINGBACK_TRACES_URL` is set. Until then every function here does nothing, and nothing of OpenTelemetry is
imported (`app.otel`).

No span waits for another process. The ids of a call's first span follow from the call's id, so any process can be its
child. A client that sends a `traceparent` has the call in its own trace, and the header is a column of the call.
"""

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

import structlog

from app.settings import Settings

if TYPE_CHECKING:
    from app.otel import Spans

_STOP_SECONDS = 2.0
"""How long a stopping process waits for its last spans to be sent."""

_spans: "Spans | None" = None


def start(settings: Settings, process: str) -> None:
    """Once in each process: send spans, if the settings say where."""
    global _spans
    if settings.traces_url is not None:
        from app.otel import Spans, otlp_exporter

        _spans = Spans(process, settings.traces_share, otlp_exporter(str(settings.traces_url)))


async def stop() -> None:
    """Send what is left, for a moment."""
    global _spans
    spans, _spans = _spans, None
    if spans is None:
        return
    closed, loop = asyncio.Event(), asyncio.get_running_loop()

    def close() -> None:
        spans.close()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(closed.set)

    Thread(target=close, daemon=True).start()  # a frozen collector must not keep this process alive
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_SECONDS):
            await closed.wait()


def begin_request(scope: MutableMapping[str, Any]) -> None:
    """A request of a client begins. Its log lines get the id of the trace that the client named."""
    if _spans is not None:
        sent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        found = _spans.begin_request(None if sent is None else sent.decode("latin-1"))
        if found is not None:
            structlog.contextvars.bind_contextvars(trace_id=found)


def find_traceparent() -> str | None:
    """The `traceparent` that the client sent with this request. None: it sent none, or calls are not traced."""
    return None if _spans is None else _spans.traceparent.get()


def call_ordered(call_id: str, began: float, **attributes: str) -> None:
    """The span of an order, which all other spans of the call belong to. `began` is by `time.time()`."""
    if _spans is not None:
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        _spans.order(call_id, began, {**attributes, "ringback.request_id": request_id})


@contextmanager
def of_call(name: str, call_id: str, traceparent: str | None, **attributes: Any) -> Iterator[None]:
    """A span of a call. While the block runs, other spans are its children, and log lines have `trace_id`."""
    if _spans is None:
        yield
        return
    with _spans.of_call(name, call_id, traceparent, attributes):
        yield


def call_moved(call_id: str, traceparent: str | None, status: str, at: datetime) -> None:
    """A call has a new status. A span without a length."""
    if _spans is not None:
        _spans.moment(f"call {status}", call_id, traceparent, at.timestamp())


@contextmanager
def step(name: str, **attributes: Any) -> Iterator[None]:
    """A part of the current span, such as a request to another server."""
    if _spans is None:
        yield
        return
    with _spans.step(name, attributes):
        yield


def headers() -> dict[str, str]:
    """The header that tells another server which trace its request is in."""
    return {} if _spans is None else _spans.headers()


def add_trace_id(_: Any, __: str, event: Any) -> Any:
    """For structlog: the id of the current trace, on every line that is logged in a span."""
    if _spans is not None and "trace_id" not in event:
        found = _spans.current_trace()
        if found is not None:
            event["trace_id"] = found
    return event
