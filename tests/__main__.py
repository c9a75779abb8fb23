"""Runs the tests: `python -m tests` runs every part, `python -m tests ARGUMENTS` runs pytest with these arguments.

The parts run side by side, because each of them waits for much of its time. The output of a part goes to a file, and is
printed when the part ends. If one part fails, the others still finish. The summary comes last.

    checks      ruff and mypy; only with CI=true
    tests       tests/unit, tests/integration and tests/acceptance
    asterisk    tests/asterisk, on a real Asterisk from Debian's packages

Where those packages cannot be had, the part `asterisk` is left out and the summary says so. With CI=true that is a
failure.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lab import packages
from tests import run_folder

_ROOT = Path(__file__).parents[1]
_PYTEST = str(Path(sys.executable).parent / "pytest")
_PROGRESS_SECONDS = 30.0
_PERCENT = re.compile(rb"\[ *(\d+)%\]")

# More processes than CPUs: tests wait for servers, timers and each other.
_CPUS = os.cpu_count() or 2
_TEST_PROCESSES = min(_CPUS + 1, 8)
_ASTERISK_PROCESSES = 2


@dataclass
class RunPart:
    """Commands that run one after another, until one of them fails."""

    name: str
    commands: list[list[str]]
    left_out: str | None = None
    """Why this part does not run."""
    fetches_asterisk: bool = False
    output: Path = field(init=False)
    code: int = 1
    """It has failed unless it says otherwise."""
    seconds: float = 0.0

    def run(self) -> None:
        began = time.monotonic()
        with self.output.open("wb") as output:
            try:
                self.code = self._run(output.fileno())
            except packages.PackagesError as error:
                self.left_out = str(error)
                self.code = int(is_ci())
        self.seconds = time.monotonic() - began

    def _run(self, output: int) -> int:
        if self.fetches_asterisk:
            packages.fetch()
        for command in self.commands:
            os.write(output, f"$ {' '.join(command)}\n".encode())
            done = subprocess.run(
                command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
            if done.returncode:
                return done.returncode
        return 0

    @property
    def progress(self) -> str:
        found = _PERCENT.findall(self.output.read_bytes())
        return f"{self.name} {found[-1].decode()}%" if found else f"{self.name} runs"

    @property
    def summary(self) -> str:
        if self.left_out:
            return f"{self.name:<10} {'FAILED' if self.code else 'LEFT OUT'}: {self.left_out}"
        lines = self.output.read_text(errors="replace").strip().splitlines()
        said = lines[-1].strip("= ") if lines else ""
        return f"{self.name:<10} {'FAILED' if self.code else 'ok':<8} {self.seconds:4.0f} s  {said}"


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def pytest(processes: int, *arguments: str) -> list[str]:
    return [_PYTEST, "-q", "-n", str(processes), "--durations=25", *arguments]


def parts(*, checks: bool) -> list[RunPart]:
    checking = RunPart("checks", [["make", "--no-print-directory", "check"]])
    return [
        *([checking] if checks else []),
        RunPart("tests", [pytest(_TEST_PROCESSES)]),
        RunPart("asterisk", [pytest(_ASTERISK_PROCESSES, "tests/asterisk")], fetches_asterisk=True),
    ]


def run_all(chosen: list[RunPart]) -> int:
    """Run them side by side; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="ringback-parts-") as folder:
        threads = {}
        for part in chosen:
            part.output = Path(folder) / part.name
            part.output.touch()
            threads[part.name] = threading.Thread(target=part.run, daemon=True)
            threads[part.name].start()
        print(f"Running side by side: {', '.join(part.name for part in chosen)}", flush=True)
        running, printed_at = list(chosen), time.monotonic()
        while running:
            for part in list(running):
                if not threads[part.name].is_alive():
                    running.remove(part)
                    print(f"\n──── {part.name}\n{part.output.read_text(errors='replace')}", flush=True)
            if running and time.monotonic() - printed_at > _PROGRESS_SECONDS:
                printed_at = time.monotonic()
                print(f"… {', '.join(part.progress for part in running)}", flush=True)
            time.sleep(0.2)
        print("\n──── Summary")
        for part in chosen:
            print(part.summary)
    return int(any(part.code for part in chosen))


def parents() -> list[int]:
    """Processes that this run ends with: this one, and the make that started it."""
    return [os.getpid(), *([os.getppid()] if os.environ.get("MAKELEVEL") else [])]


def main(arguments: list[str]) -> int:
    # A run starts a hundred Python processes. Each would compile the whole project.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ[run_folder.PARENTS] = ",".join(map(str, parents()))
    if arguments:
        os.execv(_PYTEST, [_PYTEST, *arguments])

    def interrupted(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)  # the parts end with this process; see `run_folder`

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, interrupted)
    return run_all(parts(checks=is_ci()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
