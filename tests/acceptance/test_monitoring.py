"""`ringback up` with metrics and traces: what one call, from its order to its callbacks, leaves in each process."""

import json
import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.collector import Collecting, collecting
from tests.acceptance.conftest import Instance, transcript, wait_for

CUSTOMER, AGENT = "919123456789", "918123456789"
PROCESSES = ("api", "calls", "callbacks", "transcripts")

# What one call moves, by the process that counts it.
MOVED = {
    "api": [
        'ringback_http_request_seconds_count{method="POST",route="/api/developer/calls/click2call",status="200"}',
        'ringback_calls_created_total{provider="environment"}',
    ],
    "calls": [
        'ringback_call_dial_seconds_count{provider="environment"}',
        'ringback_call_answer_seconds_count{provider="environment"}',
        'ringback_calls_ended_total{provider="environment",status="completed"}',
        'ringback_provider_request_seconds_count{provider="environment",request="place",result="ok"}',
        'ringback_provider_request_seconds_count{provider="environment",request="fetch",result="ok"}',
        'ringback_task_attempts_total{kind="dial",result="done"}',
        'ringback_task_seconds_count{kind="dial"}',
        'ringback_recordings_total{result="stored"}',
    ],
    "transcripts": [
        "ringback_call_transcript_seconds_count{}",
        "ringback_transcript_delay_seconds_count{}",
        'ringback_transcripts_total{result="ready"}',
        "ringback_transcribed_audio_seconds_total{}",
        "ringback_transcribing_seconds_total{}",
    ],
    "callbacks": ['ringback_callbacks_total{result="delivered"}', "ringback_callback_lag_seconds_count{}"],
}


def scrape(instance: Instance, process: str) -> str:
    port = int(instance.settings["RINGBACK_METRICS_PORT"]) + PROCESSES.index(process)
    return httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text


def figures(text: str) -> dict[str, float]:
    """Each series with its value. Labels are sorted, and empty ones left out."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()) if value)
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def scrape_all(instance: Instance) -> dict[str, dict[str, float]]:
    return {process: figures(scrape(instance, process)) for process in PROCESSES}


def order(api: httpx.Client, receiver: Collecting, **headers: str) -> str:
    """Order a call, and wait until all of it is delivered."""
    people = {"customer_number": CUSTOMER, "agent_number": AGENT, "callback_url": receiver.url}
    answer = api.post("/calls/click2call", json=people, headers=headers)
    call_id = str(answer.raise_for_status().json()["data"]["call_id"])
    assert transcript(api, call_id)["transcript_status"] == "ready"
    wait_for(lambda: b"transcript.ready" in b"".join(request.body for request in receiver.sent))
    return call_id


def test_a_call_moves_the_figures_of_every_process_and_is_in_the_trace_of_its_client(
    instance: Instance, api: httpx.Client, spans: Collecting
) -> None:
    before = scrape_all(instance)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with collecting() as receiver:
        call_id = order(api, receiver, traceparent=f"00-{trace_id}-b7ad6b7169203331-01")

    def still() -> list[str]:
        """What has not moved. The receiver has its answer before the callbacks worker counts it."""
        now = scrape_all(instance)
        return [
            name
            for process, names in MOVED.items()
            for name in names
            if now[process].get(name, 0) <= before[process].get(name, 0)
        ]

    wait_for(lambda: not still())
    for process in PROCESSES:
        assert f'ringback_process_info{{process="{process}"' in scrape(instance, process)
    for name in ("workers", "database_up", "provider_connected"):
        values = [value for key, value in scrape_all(instance)["api"].items() if key.startswith(f"ringback_{name}")]
        assert set(values) == {1.0}, name

    def missing() -> set[tuple[str, str]]:
        return {
            ("ringback-api", "order"),
            ("ringback-calls", "task dial"),
            ("ringback-calls", "provider place"),
            ("ringback-calls", "call in_progress"),
            ("ringback-calls", "call completed"),
            ("ringback-calls", "task fetch_recording"),
            ("ringback-transcripts", "task transcribe"),
            ("ringback-transcripts", "recognition"),
            ("ringback-callbacks", "task deliver"),
            ("ringback-callbacks", "callback"),
        } - {(span.service, span.name) for span in spans.spans_of(call_id)}

    wait_for(lambda: not missing())
    found = spans.spans_of(call_id)
    assert {span.trace_id for span in found} == {trace_id}
    assert {span.parent_id for span in found} <= {span.span_id for span in found} | {"b7ad6b7169203331"}
    (first,) = (span for span in found if span.name == "order")
    assert first.parent_id == "b7ad6b7169203331"
    assert re.fullmatch("[0-9a-f]{16}", first.attributes["ringback.request_id"])
    # The receiver can go on with the trace, and the log with the call's id.
    delivered = {span.span_id for span in found if span.name == "callback"}
    assert {request.headers["traceparent"] for request in receiver.sent} == {
        f"00-{trace_id}-{span_id}-01" for span_id in delivered
    }
    lines = [json.loads(line) for line in logs(instance).splitlines() if call_id in line]
    assert {line["trace_id"] for line in lines} == {trace_id}


def test_nothing_that_is_served_or_sent_names_a_person(
    instance: Instance, api: httpx.Client, spans: Collecting
) -> None:
    with collecting() as receiver:
        call_id = order(api, receiver)
    wait_for(lambda: any(span.name == "callback" for span in spans.spans_of(call_id)))
    assert {span.parent_id for span in spans.spans_of(call_id)} <= {"", *(s.span_id for s in spans.spans_of(call_id))}
    for process in PROCESSES:
        text = scrape(instance, process)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                assert not [value for value in sample.labels.values() if re.search(r"@|\d{7}|://", value)], sample
    sent = b"".join(request.body for request in spans.sent)
    for word in (CUSTOMER, CUSTOMER[2:], AGENT, AGENT[2:], "demo@ringback.local", receiver.url):
        assert word.encode() not in sent


def logs(instance: Instance) -> str:
    return "".join(path.read_text() for path in Path(instance.data_dir / "logs").glob("*.log"))
