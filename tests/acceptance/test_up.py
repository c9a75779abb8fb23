"""One command: side by side, again, after a crash, and its errors."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.embedded import Valkey
from tests.acceptance.conftest import PATIENCE_SECONDS, Instance, environment, ringback, start, wait_for
from tests.command import invoke


def up(env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """An `up` that must fail."""
    command = [sys.executable, "-m", "app.cli", "up"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


def processes_of(instance: Instance) -> list[int]:
    """Everything that it started: its children, and the two servers."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    children = [pid for pid, parent in pairs if parent == instance.process.pid]
    return [*children, *servers_of(instance)]


def servers_of(instance: Instance) -> list[int]:
    valkey = Valkey(instance.data_dir).pid
    assert valkey
    return [int((instance.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]), valkey]


def test_two_side_by_side_and_what_a_second_one_outlives(instance: Instance, tmp_path: Path) -> None:
    """One installation through its life, because each start takes ten seconds of CPU: a start beside another one, kill
    -9, another start, dead workers, Ctrl-C, and a last start."""
    first = start(tmp_path / "second")
    assert first.port != instance.port
    for running in (instance, first):
        assert httpx.get(f"{running.base_url}/readyz").json() == {"status": "ready", "missing": []}
    assert first.ringback("users", "create", "kept@example.com", "--password", "a password").returncode == 0
    kill_9_hinders_nothing(first)
    second = start(tmp_path / "second", port=first.port)
    assert "from an earlier start" in second.output
    assert httpx.get(f"{second.base_url}/healthz").status_code == 200
    dead_workers_are_named_and_started_again(second)
    ctrl_c_ends_everything(second)
    third = start(tmp_path / "second", port=first.port)
    assert "from an earlier start" in third.output
    assert "kept@example.com" in third.ringback("users", "list").stdout
    assert third.stop() == 0


def kill_9_hinders_nothing(running: Instance) -> None:
    children = [pid for pid in processes_of(running) if pid not in servers_of(running)]
    running.stop(signal.SIGKILL)
    wait_for(lambda: not [pid for pid in children if is_alive(pid)])  # no child outlives it for long


def dead_workers_are_named_and_started_again(running: Instance) -> None:
    servers = servers_of(running)
    workers = [pid for pid in processes_of(running) if pid not in servers and "-m worker" in command_of(pid)]
    assert len(workers) == 3

    def named() -> bool:
        return "no live calls worker" in str(httpx.get(f"{running.base_url}/readyz").json()["missing"])

    os.kill(running.process.pid, signal.SIGSTOP)  # it would restart them before the test looks
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(named)
    os.kill(running.process.pid, signal.SIGCONT)
    wait_for(lambda: httpx.get(f"{running.base_url}/readyz").status_code == 200)


def ctrl_c_ends_everything(running: Instance) -> None:
    started = processes_of(running)
    assert len(started) >= 5
    assert running.stop() == 0
    assert not [pid for pid in started if is_alive(pid)], "Ctrl-C ends everything that it started"


def command_of(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout


def test_a_taken_port_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = up(environment(tmp_path, port))
    assert failed.returncode == 1
    assert f"RINGBACK_PORT={port + 1} make up" in failed.stderr


def test_a_second_up_in_the_same_folder_says_what_to_do(instance: Instance) -> None:
    failed = up(instance.environment)
    assert failed.returncode == 1
    assert f"already runs in {instance.data_dir}" in failed.stderr.replace("\n", " ")


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed = up(environment(tmp_path / "file" / "data", 8000))
    assert failed.returncode == 1
    assert "Choose another folder" in failed.stderr


def test_a_port_that_is_none(tmp_path: Path) -> None:
    failed = up({**environment(tmp_path, 1), "RINGBACK_PORT": "http"})
    assert failed.returncode == 1
    assert "RINGBACK_PORT" in failed.stderr


WEAK = ["", "short", "a" * 64, "changeme" * 8]


def with_secret(tmp_path: Path, secret: str) -> dict[str, str]:
    return environment(
        tmp_path,
        8000,
        RINGBACK_DATABASE_URL="postgresql+asyncpg://nobody@127.0.0.1:1/x",
        RINGBACK_REDIS_URL="redis://127.0.0.1:1/0",
        RINGBACK_SECRET_KEY=secret,
    )


@pytest.mark.parametrize("secret", WEAK)
def test_the_server_refuses_to_start_on_a_weak_secret(tmp_path: Path, secret: str) -> None:
    failed = invoke(with_secret(tmp_path, secret), "serve")
    assert failed.returncode == 1
    assert "RINGBACK_SECRET_KEY" in failed.stderr
    assert "openssl rand -hex 32" in failed.stderr


@pytest.mark.parametrize("command", [["serve"], ["worker", "calls"]])
def test_a_process_refuses_to_start_on_a_weak_secret(tmp_path: Path, command: list[str]) -> None:
    failed = ringback(with_secret(tmp_path, WEAK[-1]), *command)
    assert failed.returncode == 1
    assert "RINGBACK_SECRET_KEY" in failed.stderr
    assert "openssl rand -hex 32" in failed.stderr


def test_without_settings_every_missing_one_is_named(tmp_path: Path) -> None:
    failed = invoke(environment(tmp_path, 8000), "serve")
    assert failed.returncode == 1
    for name in ("RINGBACK_DATABASE_URL", "RINGBACK_REDIS_URL", "RINGBACK_SECRET_KEY"):
        assert f"{name}: is not set" in failed.stderr
