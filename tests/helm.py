"""Helm, as a package from PyPI. It runs in a process of its own, because the Go runtime in it takes over signals.

`python -m tests.helm` reads one request from standard input. `lint` and `render` send it.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHART = Path(__file__).parents[1] / "deploy/helm/ringback"


class HelmFailed(Exception):
    """Helm refused the values. The text is its own."""


def lint(values: dict[str, Any]) -> list[str]:
    """The warnings and errors of `helm lint --strict`."""
    report = _ask({"do": "lint", "values": values})
    return [*(message["error"] for message in report["messages"] if message["severity"] > 1), *report["errors"]]


def render(values: dict[str, Any], name: str = "prod") -> dict[str, str]:
    """What `helm template` prints, by template. Raises `HelmFailed`."""
    rendered: dict[str, str] = _ask({"do": "render", "values": values, "name": name})
    return rendered


def _ask(request: dict[str, Any]) -> Any:
    """Skips the test where Helm has no package for this system."""
    if find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed: it has no package for this system")
    command = [sys.executable, "-m", "tests.helm"]
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, timeout=120, cwd=CHART.parents[2]
    )
    if done.returncode:
        raise HelmFailed(done.stdout + done.stderr)
    return json.loads(done.stdout)


def _answer() -> None:
    import helm_python

    request = json.load(sys.stdin)
    try:
        if request["do"] == "lint":
            answer: Any = helm_python.lint(os.fspath(CHART), request["values"], strict=True)
        else:
            with helm_python.Chart.load(os.fspath(CHART)) as chart:
                chart.validate_schema(request["values"])
                answer = chart.render(request["values"], name=request["name"], namespace="calls")
    except helm_python.HelmError as error:
        sys.exit(str(error))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _answer()
