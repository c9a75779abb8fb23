"""From an order to its transcript, over HTTP, with real recognition."""

import json
from pathlib import Path

import httpx
import pytest

from app.telephony import simulator
from tests.acceptance.conftest import Instance, place, transcript


def test_the_demonstration_call_was_shown_to_its_end(instance: Instance) -> None:
    for word in ("queued", "dialing", "ringing", "in_progress", "completed", "Transcript: ready", "Outcome: "):
        assert word in instance.output


def test_an_answered_call_gets_its_transcript(api: httpx.Client) -> None:
    data = transcript(api, place(api))
    assert data["transcript_status"] == "ready"
    made = data["transcript"]
    outcomes = {json.loads(path.read_text())["expected_outcome"] for path in simulator.CONVERSATIONS.glob("*.json")}
    assert made["call_outcome"] in outcomes
    assert made["call_outcome"] in made["summary"]
    assert {turn["role"] for turn in made["history"]} == {"agent", "customer"}
    starts = [turn["start"] for turn in made["history"]]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("customer", "agent", "reason"),
    [
        ("15005550001", "918888888888", "The customer's line is busy"),
        ("15005550002", "918888888888", "The customer did not answer"),
        ("15005550003", "918888888888", "The customer rejected the call"),
        ("15005550004", "918888888888", "The customer's number is not in service"),
        ("919999999999", "15005550011", "The agent did not answer"),
        ("919999999999", "15005550012", "The agent's line is busy"),
    ],
)
def test_a_call_without_an_answer_ends_with_the_reason(
    api: httpx.Client, customer: str, agent: str, reason: str
) -> None:
    data = transcript(api, place(api, customer, agent))
    assert (data["transcript_status"], data["error"], data["transcript"]) == ("failed", reason, None)


def test_silence_and_voicemail(api: httpx.Client) -> None:
    silent, machine = place(api, "15005550005"), place(api, "15005550006")
    made = transcript(api, silent)["transcript"]
    assert (made["call_outcome"], made["history"]) == ("No conversation", [])
    assert transcript(api, machine)["transcript"]["call_outcome"] == "Voicemail"


def test_the_timeline_is_there_for_the_person_who_runs_it(api: httpx.Client, instance: Instance) -> None:
    call_id = place(api, "15005550001")
    transcript(api, call_id)
    shown = instance.ringback("calls", "show", call_id)
    assert shown.returncode == 0, shown.stderr
    for word in ("queued", "dialing", "agent:ringing", "customer:ringing", "user_busy", "xxxxx550001"):
        assert word in shown.stdout
    assert "15005550001" not in shown.stdout
    assert call_id in instance.ringback("calls", "list").stdout


def test_logs_have_ids_and_no_numbers_or_secrets(api: httpx.Client, instance: Instance, password: str) -> None:
    call_id = place(api, "919876543210", "918765432109")
    transcript(api, call_id)
    api.post("/refresh_token", params={"refresh_token": "a-secret-token"})
    logs = "".join(path.read_text() for path in Path(instance.data_dir / "logs").glob("*.log"))
    assert call_id in logs
    assert "request_id" in logs
    for secret in ("919876543210", "918765432109", password, "a-secret-token", "demo@ringback.local"):
        assert secret not in logs
