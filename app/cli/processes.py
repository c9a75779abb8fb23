"""Child processes of `ringback up`: started, logged to files, restarted when they end, stopped with their parent."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from app import parent_watch
from app.cli.common import complain

_STOP_SECONDS = 6.0
_LONGEST_PAUSE = 30.0
_STOPPED_PAUSE = 0.5
_STEADY_SECONDS = 60.0


@dataclass
class Process:
    name: str
    command: list[str]
    log: Path
    running: "subprocess.Popen[bytes]"
    environment: dict[str, str] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at: float | None = None

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(f"  {line}" for line in self.log.read_text(errors="replace").splitlines()[-5:])


def was_stopped(code: int) -> bool:
    """Whether a process with this exit code was stopped by a signal, and has no fault."""
    return code in (0, -signal.SIGTERM, -signal.SIGINT)


class Processes:
    """`start` starts processes. `watch` restarts them, until an exception (of a signal) ends it. `stop` ends them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: list[Process] = []
        # Nothing is written to it. When this process ends in any way, the pipe closes, and the children end.
        self._parent_pipe, self._held = os.pipe()

    def start(self, name: str, module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Run `python -m module arguments`, with these variables added. Its output goes to a log file with its name."""
        self._logs.mkdir(exist_ok=True)
        command = [sys.executable, "-m", module, *arguments]
        log = self._logs / f"{name.replace(' ', '-')}.log"
        added = environment or {}
        self._processes.append(Process(name, command, log, self._spawn(command, log, added), added))

    def dead(self) -> Process | None:
        """A process that has ended, if any."""
        return next((process for process in self._processes if process.running.poll() is not None), None)

    def watch(self) -> None:
        """Restart each process that ends: at once if it was stopped or failed once, else after growing pauses."""
        while True:
            for process in self._processes:
                self._revive(process)
            time.sleep(0.2)

    def _revive(self, process: Process) -> None:
        now = time.monotonic()
        if process.running.poll() is None:
            if process.restarts and now - process.started_at > _STEADY_SECONDS:
                process.restarts = 0
            return
        if process.restart_at is None:
            code = process.running.returncode
            pause = _STOPPED_PAUSE if was_stopped(code) else min(2.0**process.restarts - 1, _LONGEST_PAUSE)
            process.restart_at = now + pause
            complain(f"The {process.name} ended (code {code}); starting it again in {pause:.0f} s. Log: {process.log}")
        if now >= process.restart_at:
            process.restarts += not was_stopped(process.running.returncode)
            process.running = self._spawn(process.command, process.log, process.environment)
            process.started_at, process.restart_at = now, None

    def stop(self) -> None:
        """Stop all processes. After a few seconds they are killed."""
        for process in self._processes:
            if process.running.poll() is None:
                process.running.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            try:
                process.running.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.running.kill()
                process.running.wait()

    def _spawn(self, command: list[str], log: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[self._parent_pipe],
                env={**os.environ, **environment, parent_watch.VARIABLE: str(self._parent_pipe)},
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            )
