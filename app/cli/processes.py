"""Child processes: started, logged, restarted when they end, and stopped with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
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
    log: Path | None
    """None: it writes to where its parent writes."""
    environment: dict[str, str] = field(default_factory=dict)
    inherits: Sequence[int] = ()
    running: "subprocess.Popen[bytes]" = field(init=False)
    started_at: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at: float | None = None

    def last_words(self) -> str:
        """The end of its log."""
        log = "" if self.log is None else self.log.read_text(errors="replace")
        return "\n".join(f"  {line}" for line in log.splitlines()[-5:])


def was_stopped(code: int) -> bool:
    """Whether a process with this exit code was stopped by a signal, and has no fault."""
    return code in (0, -signal.SIGTERM, -signal.SIGINT)


class Processes:
    """`start` starts processes. `watch` restarts them, until an exception (of a signal) ends it. `stop` ends them."""

    def __init__(self, logs: Path | None = None) -> None:
        """`logs`: a folder for a log of each process. None: they write to where this process writes."""
        self._logs = logs
        self._processes: list[Process] = []
        # Nothing is written to it. When this process ends in any way, the pipe closes, and the children end.
        self._parent_pipe, self._held = os.pipe()

    def start(
        self,
        name: str,
        module: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        inherits: Sequence[int] = (),
    ) -> None:
        """Run `python -m module arguments`, with these variables added, and with these open files."""
        log = None
        if self._logs is not None:
            self._logs.mkdir(exist_ok=True)
            log = self._logs / f"{name.replace(' ', '-')}.log"
        process = Process(name, [sys.executable, "-m", module, *arguments], log, environment or {}, inherits)
        process.running = self._spawn(process)
        self._processes.append(process)

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
            where = "" if process.log is None else f". Log: {process.log}"
            complain(f"The {process.name} ended (code {code}); starting it again in {pause:.0f} s{where}")
        if now >= process.restart_at:
            process.restarts += not was_stopped(process.running.returncode)
            process.running = self._spawn(process)
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

    def _spawn(self, process: Process) -> "subprocess.Popen[bytes]":
        with nullcontext() if process.log is None else process.log.open("ab") as output:
            return subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                pass_fds=[self._parent_pipe, *process.inherits],
                env={**os.environ, **process.environment, parent_watch.VARIABLE: str(self._parent_pipe)},
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            )
