"""Runs `ringback` in this process. A process of its own costs two seconds of CPU, nearly all of it for imports."""

import subprocess
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from typer.testing import CliRunner, Result

from app.cli import app
from app.settings import get_settings


def invoke(env: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The result as of a process with these variables. Blocks. Only one at a time, because it sets `os.environ`."""

    def run() -> Result:
        get_settings.cache_clear()
        try:
            return CliRunner().invoke(app, arguments, env=env, prog_name="ringback")
        finally:
            get_settings.cache_clear()

    with ThreadPoolExecutor(1) as thread:  # a command starts an event loop, and this thread already runs one
        result = thread.submit(run).result()
    stderr = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        stderr += "".join(traceback.format_exception(result.exception))
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, stderr)
