"""Spans by OpenTelemetry. The only module that imports it; `app.tracing` says when.

Names and attributes of spans hold no telephone numbers. Of an error they have the type only.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()


def otlp_exporter(url: str) -> SpanExporter:
    """Sends spans to a collector, by OTLP over HTTP."""
    return OTLPSpanExporter(endpoint=url)


class _Ids(RandomIdGenerator):
    """Random ids, except for the first span of a call."""

    def __init__(self) -> None:
        self.given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.given is None else self.given[0]

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.given is None else self.given[1]


class Spans:
    """What makes the spans of one process."""

    def __init__(self, process: str, share: float, exporter: SpanExporter) -> None:
        """`share` of the calls are traced, unless a client's `traceparent` says whether to."""
        resource = {"service.name": f"ringback-{process}", "service.version": version("ringback")}
        self._ids = _Ids()
        self._sampler = TraceIdRatioBased(share)
        self._provider = TracerProvider(
            sampler=ParentBased(self._sampler),
            resource=Resource.create(resource),
            id_generator=self._ids,
            shutdown_on_exit=False,  # `tracing.stop` does it, and waits for no frozen collector
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ringback")
        self.traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)

    def begin_request(self, traceparent: str | None) -> str | None:
        """Keep a valid `traceparent` for the order in this request, and return its trace id."""
        named = None if traceparent is None else _context_of(traceparent)
        self.traceparent.set(traceparent if named is not None else None)
        return None if named is None else trace.format_trace_id(named.trace_id)

    def order(self, call_id: str, began: float, attributes: Mapping[str, Any]) -> None:
        traceparent = self.traceparent.get()
        parent = None if traceparent is None else _context_of(traceparent)
        context = _NO_CONTEXT if parent is None else _as_parent(parent)
        self._ids.given = _ids_of(call_id)
        try:
            span = self._tracer.start_span(
                "order", context, SpanKind.SERVER, {**attributes, **_named(call_id)}, start_time=_nanoseconds(began)
            )
        finally:
            self._ids.given = None
        span.end()

    @contextmanager
    def of_call(
        self, name: str, call_id: str, traceparent: str | None, attributes: Mapping[str, Any]
    ) -> Iterator[None]:
        context = _as_parent(self._order_of(call_id, traceparent))
        with self._current(name, context, SpanKind.CONSUMER, {**attributes, **_named(call_id)}):
            yield

    @contextmanager
    def step(self, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        with self._current(name, None, SpanKind.CLIENT, attributes):
            yield

    def moment(self, name: str, call_id: str, traceparent: str | None, at: float) -> None:
        context = _as_parent(self._order_of(call_id, traceparent))
        span = self._tracer.start_span(name, context, attributes=_named(call_id), start_time=_nanoseconds(at))
        span.end(_nanoseconds(at))

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier

    def current_trace(self) -> str | None:
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def close(self) -> None:
        """Blocks until what is left is sent, or the exporter gives up."""
        self._provider.shutdown()

    @contextmanager
    def _current(
        self, name: str, context: Context | None, kind: SpanKind, attributes: Mapping[str, Any]
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, context, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its text may hold anything
                raise

    def _order_of(self, call_id: str, traceparent: str | None) -> SpanContext:
        """The context of the span of this call's order, which another process has made."""
        trace_id, span_id = _ids_of(call_id)
        named = None if traceparent is None else _context_of(traceparent)
        if named is not None:
            return SpanContext(named.trace_id, span_id, is_remote=True, trace_flags=named.trace_flags)
        is_traced = self._sampler.should_sample(None, trace_id, "").decision.is_sampled()  # type: ignore[no-untyped-call]
        flags = TraceFlags(TraceFlags.SAMPLED if is_traced else TraceFlags.DEFAULT)
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _ids_of(call_id: str) -> tuple[int, int]:
    """The trace id of a call, and the id of its first span. Both follow from the call's id."""
    digest = hashlib.sha256(call_id.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _context_of(traceparent: str) -> SpanContext | None:
    """The context that the header names. None if it is not valid."""
    context = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent}, _NO_CONTEXT)).get_span_context()
    return context if context.is_valid else None


def _as_parent(context: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(context), _NO_CONTEXT)


def _named(call_id: str) -> dict[str, str]:
    return {"ringback.call_id": call_id}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
