"""`ringback`, run as a person runs it, in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings


class Ringback:
    """Runs it with these settings, and nothing of an instance that may run on this machine."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.environment = {
            **os.environ,
            "RINGBACK_DATABASE_URL": settings.database_url,
            "RINGBACK_REDIS_URL": settings.redis_url,
            "RINGBACK_SECRET_KEY": settings.secret_key.get_secret_value(),
            "RINGBACK_DATA_DIR": str(data_dir),
        }

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> "CommandResult":
        return self.python("-m", "app.cli", *arguments, stdin=stdin, **env)

    def python(self, *arguments: str, stdin: bytes = b"", **env: str) -> "CommandResult":
        done = subprocess.run(
            [sys.executable, *arguments], env=self.environment | env, input=stdin, capture_output=True, timeout=60
        )
        return CommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    stderr: str

    def check(self) -> str:
        """What it printed; it has to have gone well."""
        assert self.code == 0, self.stderr
        return self.out

    def refused(self) -> str:
        """What it told the person; it has to have gone wrong in an orderly way."""
        assert self.code == 1, (self.out, self.stderr)
        assert "Traceback" not in self.stderr
        assert len(self.stderr.splitlines()) == 1, self.stderr
        return self.stderr
