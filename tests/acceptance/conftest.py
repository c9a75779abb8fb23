"""The running product: `ringback up` in its own folder, used over HTTP only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from bench.installation import free_port
from tests.acceptance.collector import Collecting, collecting
from tests.command import invoke

if TYPE_CHECKING:
    from tests.acceptance.console_site import Site

PATIENCE_SECONDS = 120  # far longer than anything takes, because no test is about speed


@dataclass
class Instance:
    """One `ringback up`."""

    data_dir: Path
    port: int
    process: "subprocess.Popen[str]"
    output: str
    settings: dict[str, str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.data_dir, self.port, **self.settings)

    def ringback(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in this process."""
        return invoke({"RINGBACK_DATA_DIR": str(self.data_dir)} | self.settings, *arguments)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout
        self.process.stdout.close()
        return code


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = free_port()
        try:
            for port in range(first + 1, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first


def environment(data_dir: Path, port: int, **more: str) -> dict[str, str]:
    return {**os.environ, "RINGBACK_DATA_DIR": str(data_dir), "RINGBACK_PORT": str(port), **more}


def ringback(env: dict[str, str], *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def start(
    data_dir: Path,
    *,
    port: int | None = None,
    until: str = "Ctrl-C stops",
    demo: bool = False,
    settings: dict[str, str] | None = None,
) -> Instance:
    """Start it with these settings, and read its output until it serves."""
    port, settings = port or free_port(), settings or {}
    options = [] if demo else ["--no-demo"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", *options],
        env=environment(data_dir, port, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if until in line:
            return Instance(data_dir, port, process, output, settings)
    raise AssertionError(f"`ringback up` ended with {process.wait()}:\n{output}")


@pytest.fixture(scope="session")
def spans() -> Iterator[Collecting]:
    """The collector of the `instance`'s spans."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory, spans: Collecting) -> Iterator[Instance]:
    """With everything on that can be on. It may send requests to this machine."""
    settings = {
        "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "RINGBACK_METRICS_PORT": str(free_ports(4)),
        "RINGBACK_TRACES_URL": spans.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds until spans are sent
    }
    running = start(tmp_path_factory.mktemp("up"), demo=True, settings=settings)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def password(instance: Instance) -> str:
    found = re.search(r"its password +(\S+)", instance.output)
    assert found, instance.output
    return found[1]


@pytest.fixture(scope="session")
def token(instance: Instance, password: str) -> str:
    """The token of one login, before a test that guesses passwords throttles this address."""
    login = {"email": "demo@ringback.local", "password": password}
    answer = httpx.post(f"{instance.base_url}/api/developer/login", json=login, timeout=30)
    return str(answer.json()["data"]["access_token"])


@pytest.fixture
def api(instance: Instance, token: str) -> Iterator[httpx.Client]:
    """A client that has logged in as the first user."""
    with httpx.Client(base_url=f"{instance.base_url}/api/developer", timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def wait_for(what: Callable[[], Any]) -> Any:
    """Call it until its result is true, and return that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := what()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return result


def place(api: httpx.Client, customer: str = "919999999999", agent: str = "918888888888") -> str:
    answer = api.post("/calls/click2call", json={"customer_number": customer, "agent_number": agent})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["call_id"])


def transcript(api: httpx.Client, call_id: str) -> dict[str, Any]:
    """Poll as a client does, until the transcript is ready or has failed."""

    def ended() -> Any:
        data = api.get(f"/calls/{call_id}/transcript").raise_for_status().json()["data"]
        return data["transcript_status"] != "pending" and data

    data: dict[str, Any] = wait_for(ended)
    return data


@pytest.fixture(scope="session")
async def console(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Site]":
    """An installation and a browser for all tests of the console."""
    from tests.acceptance.console_site import open_site  # it needs this module

    async with open_site(tmp_path_factory.mktemp("console")) as site:
        yield site
