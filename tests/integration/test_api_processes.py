"""Several API processes behind one listener."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.settings import Settings
from tests.integration.command import Ringback


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def living(parent: psutil.Process) -> set[int]:
    return {child.pid for child in parent.children() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(migrated: Settings, port: int, tmp_path: Path) -> dict[str, str]:
    own = {"RINGBACK_API_PROCESSES": "2", "RINGBACK_PORT": str(port)}
    return os.environ | Ringback(migrated, tmp_path).settings | own


@pytest.fixture
def parent(environment: dict[str, str], port: int) -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-m", "app.cli", "serve"], env=environment) as started:
        parent = psutil.Process(started.pid)
        try:
            wait_until(lambda: len(living(parent)) == 2 and is_healthy(port))
            yield parent
        finally:
            started.kill()  # its children end with it


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
    except httpx.ConnectError:
        return False


def test_one_that_dies_is_started_again_and_all_stop_together(parent: psutil.Process, port: int) -> None:
    first, second = parent.children()
    first.kill()
    wait_until(lambda: len(living(parent) - {first.pid}) == 2)
    assert all(is_healthy(port) for _ in range(10))
    children = parent.children()
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 0
    assert psutil.wait_procs([second, *children], timeout=30)[1] == []


def test_none_outlives_a_killed_parent(parent: psutil.Process) -> None:
    children = parent.children()
    parent.kill()
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_port_that_is_taken_is_said(environment: dict[str, str], port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        command = [sys.executable, "-m", "app.cli", "serve"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
