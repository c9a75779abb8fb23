"""The session in README works as pasted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import PATIENCE_SECONDS, Instance

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_session_of_the_readme_ends_in_a_transcript(instance: Instance, tmp_path: Path) -> None:
    if not os.environ.get("CI") and not (shutil.which("jq") and shutil.which("curl")):
        pytest.skip("needs curl and jq")
    section = README.split("## Place a call", 1)[1]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    session = found[1].replace("http://127.0.0.1:8000", instance.base_url)
    # Only the address and the path of the program are replaced. A slow machine gets the time it needs.
    session = session.replace(".venv/bin/ringback", f"{sys.executable} -m app.cli").replace("sleep 15", "until_ended")
    waiting = """until_ended() { for _ in $(seq 200); do
      curl -s "$BASE_URL/api/developer/calls/$CALL_ID/transcript" -H "Authorization: Bearer $ACCESS_TOKEN" |
        grep -q '"pending"' || return 0; sleep 0.5; done; }
    """
    # An address of its own, because other tests guess passwords from this machine's address until it is throttled.
    (tmp_path / ".curlrc").write_text('header = "X-Forwarded-For: 10.20.30.40"\n')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", waiting + session],
        env=instance.environment | {"CURL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert '"transcript_status": "ready"' in done.stdout, done.stdout
    assert '"role": "agent"' in done.stdout
    assert "Transcript: ready" in done.stdout
