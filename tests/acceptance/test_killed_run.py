"""A test run that is killed leaves no process and no file behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import run_folder
from tests.acceptance.conftest import wait_for

ROOT = Path(__file__).parents[2]

# A test that never ends, with the two servers that run as daemons, and a child in its own session
ENDLESS = """
import os, subprocess, time
from pathlib import Path

def test_endless(servers):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    part = Path("{report}.part")
    part.write_text(os.environ["TEST_RUN_FOLDER"] + " " + str(os.getpid()))
    part.replace("{report}")
    time.sleep(600)
"""

PYTEST = ["-p", "tests.conftest", "--rootdir=.", "-c", "pyproject.toml"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("killed", ["make", "pytest with processes"])
def test_whatever_is_killed_nothing_is_left(tmp_path: Path, killed: str) -> None:
    report = tmp_path / "report"
    endless = tmp_path / "test_endless.py"
    endless.write_text(ENDLESS.format(report=report))
    arguments = [*PYTEST, *(["-n", "1"] if "processes" in killed else []), str(endless)]
    if killed == "make":
        command = ["make", "--old-file=.venv/dev", "test", f"ARGS={' '.join(arguments)}"]
    else:
        command = [sys.executable, "-m", "pytest", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "TEST_RUN_P"))}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: report.exists() or run.poll() is not None)
        assert run.poll() is None, "it ended by itself"
        said, _, pid = report.read_text().rpartition(" ")
        folder, itself = Path(said), psutil.Process(int(pid))
        names = {process.name() for process in run_folder.processes_of(folder)}
        assert {"postgres", "valkey-server", "sleep"} <= names, names
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: not itself.is_running())
    wait_for(lambda: not run_folder.processes_of(folder))
    wait_for(lambda: not folder.exists())
