"""The units of deploy/systemd: systemd accepts them, and they are true about Ringback."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from app.cli import app
from app.engine_models import Queue
from app.settings import Settings
from lab import packages
from tools import settings_table

UNITS = Path(__file__).parents[2] / "deploy/systemd"
COMMON = UNITS / "ringback-.service.d/common.conf"
PROCESSES = ["ringback-api.service", *(f"ringback-{queue}@.service" for queue in Queue)]
# What the units name and a real machine has.
OF_SYSTEMD = ("sysinit", "basic", "shutdown", "timers", "multi-user", "network-online")
PROGRAMS = ("opt/ringback/current/bin/ringback", "bin/sh")
_LARGEST_EXPOSURE = 20
"""Of `systemd-analyze security`, in tenths: 100 for a unit without any hardening."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a machine that has the units."""
    root = tmp_path_factory.mktemp("machine")
    shutil.copytree(UNITS, root / "etc/systemd/system")
    (root / "usr/lib/systemd/system").mkdir(parents=True)
    for name in OF_SYSTEMD:
        (root / f"usr/lib/systemd/system/{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for program in PROGRAMS:
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("")
        (root / program).chmod(0o755)
    return root


@pytest.fixture(scope="module")
def analyze() -> list[str]:
    """`systemd-analyze` of this machine, or Debian's. Skips the tests where neither can be had."""
    if installed := shutil.which("systemd-analyze"):
        return [installed]
    try:
        return packages.command(packages.fetch(packages.SYSTEMD), "bin/systemd-analyze")
    except packages.PackagesError as error:
        pytest.skip(str(error))


def _run(command: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)


def _read(name: str) -> dict[str, dict[str, str]]:
    """Sections of a unit, without those of common.conf."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / name)
    return {section: dict(unit[section]) for section in unit.sections()}


def _instances() -> list[str]:
    return sorted(path.name.replace("@", "@1") for path in UNITS.glob("ringback*.*") if path.suffix != ".example")


def test_systemd_finds_nothing_to_complain_about(machine: Path, analyze: list[str]) -> None:
    units = [name for name in _instances() if (machine / "etc/systemd/system" / name.replace("@1", "@")).is_file()]
    assert len(units) == len(list(UNITS.glob("*.service"))) + 2  # the target and the timer
    done = _run(analyze, "verify", f"--root={machine}", "--man=no", *units)
    # systemd ignores a key that it does not know, and says so, with exit code 0.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in _instances() if name.endswith(".service")])
def test_each_service_is_hardened(machine: Path, analyze: list[str], name: str) -> None:
    done = _run(analyze, "security", "--offline=true", f"--root={machine}", f"--threshold={_LARGEST_EXPOSURE}", name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_command_exists() -> None:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for path in UNITS.glob("*.service"):
        command = re.search(r"bin/ringback (\S+)(?: (\S+))?", _read(path.name)["Service"]["ExecStart"])
        assert command
        assert command[1] in group.commands
        if command[1] == "worker":
            assert path.name == f"ringback-{command[2]}@.service"
            assert command[2] in list(Queue)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_longer_to_stop_than_it_takes(name: str) -> None:
    service = _read(name)["Service"]
    grace = re.search(r"RINGBACK_SHUTDOWN_GRACE_SECONDS=(\d+)", service.get("Environment", ""))
    assert float(service["TimeoutStopSec"]) >= (float(grace[1]) if grace else 5) + 10  # 5: of uvicorn
    assert service["KillMode"] == "mixed"
    assert service["Restart"] == "always"


@pytest.mark.parametrize("name", [*PROCESSES, "ringback-backup.service"])
def test_nothing_starts_before_the_tables_are_upgraded(name: str) -> None:
    assert _read(name)["Unit"]["After"] == _read(name)["Unit"]["Wants"] == "ringback-migrate.service"


@pytest.mark.parametrize("name", PROCESSES)
def test_the_target_stops_every_process(name: str) -> None:
    unit = _read(name)
    assert unit["Unit"]["PartOf"] == unit["Install"]["WantedBy"] == "ringback.target"


def test_each_variable_is_a_setting() -> None:
    known = {options.variable(name) for options in settings_table.TABLES.values() for name in options.model_fields}
    texts = [path.read_text() for path in UNITS.rglob("*") if path.is_file()]
    assert {name for text in texts for name in re.findall(r"\b(RINGBACK_\w+)=", text)} <= known


def test_the_example_lacks_only_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in (UNITS / "ringback.env.example").read_text().splitlines() if line and line[0] != "#"]
    for variable, value in (line.split("=", 1) for line in lines):
        assert shlex.split(value) == ([value] if value else [])  # the same to a shell and to systemd
        monkeypatch.setenv(variable, value or "0123456789abcdef" * 4)
    monkeypatch.setenv("RINGBACK_DATA_DIR", "/nonexistent")
    assert Settings.read().base_url == "https://calls.example.com/"
