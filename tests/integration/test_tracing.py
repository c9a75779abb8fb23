"""Traces, with OpenTelemetry's own exporter into memory: which trace a span is in, and what it may say."""

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import tracing
from app.db import Database
from app.models import Call
from app.otel import Spans
from tests.integration.call_runner import MakeCallRunner, ScriptedProvider, completed, ended

TRACE = "0af7651916cd43dd8448eb211c80319c"
ORDER = {"customer_number": "919999999999", "agent_number": "918888888888"}


class Exported:
    """The spans of this process."""

    def __init__(self, share: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.spans = Spans("test", share, self._exporter)

    def of_call(self, call_id: str) -> list[ReadableSpan]:
        self.spans._provider.force_flush()
        finished = self._exporter.get_finished_spans()
        traces = {trace_of(span) for span in finished if (span.attributes or {}).get("ringback.call_id") == call_id}
        return [span for span in finished if trace_of(span) in traces]


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    made = Exported()
    monkeypatch.setattr(tracing, "_spans", made.spans)
    yield made
    made.spans.close()


async def place(client: httpx.AsyncClient, headers: dict[str, str], traceparent: str | None = None) -> str:
    sent = headers if traceparent is None else {**headers, "traceparent": traceparent}
    answer = await client.post("/api/developer/calls/click2call", json=ORDER, headers=sent)
    return str(answer.raise_for_status().json()["data"]["call_id"])


async def test_all_spans_of_a_call_are_below_its_order_and_name_nobody(
    exported: Exported, make_runner: MakeCallRunner
) -> None:
    runner = await make_runner(ScriptedProvider(placing=RuntimeError("to 919999999999")))
    await runner.run("dial")
    runner.use(ScriptedProvider(snapshot=ended()))
    await runner.run("track")
    found = exported.of_call(runner.call_id)
    names = [span.name for span in found]
    assert {"order", "task dial", "provider place", "task track", "provider fetch", "call completed"} <= set(names)
    (order,) = (span for span in found if span.name == "order")
    by_id = {span.context.span_id: span for span in found}
    for span in found:
        while span.parent is not None:
            span = by_id[span.parent.span_id]
        assert span is order
    (failed,) = (span for span in found if span.name == "provider place")
    assert (failed.status.is_ok, failed.status.description, failed.events) == (False, "RuntimeError", ())
    assert not [span for span in found if "9999" in span.to_json().replace(runner.call_id, "")]


async def test_log_lines_of_a_span_have_its_trace(exported: Exported, make_runner: MakeCallRunner) -> None:
    runner = await make_runner(ScriptedProvider())
    assert tracing.add_trace_id(None, "", {}) == {}
    with tracing.of_call("task dial", runner.call_id, None):
        (order,) = exported.of_call(runner.call_id)
        assert tracing.add_trace_id(None, "", {}) == {"trace_id": trace_of(order)}
        assert tracing.headers()["traceparent"].split("-")[1] == trace_of(order)


@pytest.mark.parametrize(
    ("traceparent", "share", "is_sent"),
    [
        (None, 1.0, True),
        (None, 0.0, False),
        (f"00-{TRACE}-b7ad6b7169203331-01", 0.0, True),  # its client decides
        (f"00-{TRACE}-b7ad6b7169203331-00", 1.0, False),
    ],
)
async def test_a_share_of_the_calls_is_traced_unless_the_client_decides(
    make_runner: MakeCallRunner, monkeypatch: pytest.MonkeyPatch, traceparent: str | None, share: float, is_sent: bool
) -> None:
    made = Exported(share)
    monkeypatch.setattr(tracing, "_spans", made.spans)
    made.spans.begin_request(traceparent)
    runner = await completed(await make_runner(ScriptedProvider()))
    assert (await runner.call()).traceparent == traceparent
    names = {span.name for span in made.of_call(runner.call_id)}
    assert ({"order", "task dial", "task track", "call completed"} <= names) == is_sent
    assert is_sent or not names
    if is_sent and traceparent:
        assert {trace_of(span) for span in made.of_call(runner.call_id)} == {TRACE}
    made.spans.close()


@pytest.mark.parametrize(
    "traceparent",
    ["", "x", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331", f"ff-{TRACE}-b7ad6b7169203331-01"],
)
async def test_a_traceparent_that_is_none_changes_nothing(
    exported: Exported, client: httpx.AsyncClient, headers: dict[str, str], db: Database, traceparent: str
) -> None:
    call_id = await place(client, headers, traceparent)
    (order,) = exported.of_call(call_id)
    assert order.parent is None
    async with db.transaction() as session:
        assert (await session.get_one(Call, call_id)).traceparent is None


async def test_without_traces_nothing_is_kept(client: httpx.AsyncClient, headers: dict[str, str], db: Database) -> None:
    call_id = await place(client, headers, f"00-{TRACE}-b7ad6b7169203331-01")
    async with db.transaction() as session:
        assert (await session.get_one(Call, call_id)).traceparent is None
    with tracing.of_call("task dial", call_id, None), tracing.step("provider place"):
        assert (tracing.headers(), tracing.add_trace_id(None, "", {})) == ({}, {})
