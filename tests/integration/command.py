"""Runs `ringback` as a person does: in this process, or in its own where a test is about the process.

What only a process shows is tested with `process`: exit codes, the encoding of standard input, tracebacks, two at once.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from tests.command import invoke


class Ringback:
    """Runs commands with these settings, and finds no other instance on this machine."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.settings = {
            "RINGBACK_DATABASE_URL": settings.database_url,
            "RINGBACK_REDIS_URL": settings.redis_url,
            "RINGBACK_SECRET_KEY": settings.secret_key.get_secret_value(),
            "RINGBACK_DATA_DIR": str(data_dir),
        }

    def __call__(self, *arguments: str, **env: str) -> "CommandResult":
        """Run a command in this process."""
        done = invoke(self.settings | env, *arguments)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def process(self, *arguments: str, stdin: bytes = b"", **env: str) -> "CommandResult":
        return self.python("-m", "app.cli", *arguments, stdin=stdin, **env)

    def python(self, *arguments: str, stdin: bytes = b"", **env: str) -> "CommandResult":
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | self.settings | env,
            input=stdin,
            capture_output=True,
            timeout=120,
        )
        return CommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    stderr: str

    def check(self) -> str:
        """The output. The command must succeed."""
        assert self.code == 0, self.stderr
        return self.out

    def refused(self) -> str:
        """The error message. The command must fail without a traceback."""
        assert self.code == 1, (self.out, self.stderr)
        assert "Traceback" not in self.stderr
        assert len(self.stderr.splitlines()) == 1, self.stderr
        return self.stderr
