"""Prometheus's promtool, from Debian's packages."""

import subprocess
from pathlib import Path

import pytest

from lab import packages

RULES = Path(__file__).parents[1] / "deploy/monitoring/alerts.yml"


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run it. Skips the test where it cannot be had."""
    try:
        root = packages.fetch(packages.PROMTOOL)
    except packages.PackagesError as error:
        pytest.skip(str(error))
    command = [*packages.command(root, "bin/promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
