"""How `ringback up` restarts its processes."""

import signal
import sys
import time
from pathlib import Path

import pytest

from app.cli import processes
from app.cli.processes import Process, Processes


@pytest.mark.parametrize(
    ("code", "stopped"),
    [(0, True), (-signal.SIGTERM, True), (-signal.SIGINT, True), (1, False), (-signal.SIGKILL, False)],
)
def test_a_process_that_was_stopped_is_started_again_at_once_however_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, stopped: bool
) -> None:
    """A process that failed is restarted after growing pauses."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(processes, "complain", lambda _: None)

    class Ended:
        def poll(self) -> int:
            return code

        returncode = code

    started = Processes(tmp_path)
    monkeypatch.setattr(started, "_spawn", lambda *_: Ended())
    process = Process("worker", [sys.executable], tmp_path / "log")
    process.running = Ended()  # type: ignore[assignment]
    pauses = []
    for _ in range(6):
        started._revive(process)
        if process.restart_at is not None:
            pauses.append(process.restart_at - now)
            now = process.restart_at
            started._revive(process)
        else:
            pauses.append(0.0)
    assert pauses == ([0.5] * 6 if stopped else [0, 1, 3, 7, 15, 30])
