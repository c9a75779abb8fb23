"""The locked requirements, and what is made of them."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools.lock import LOCKS

ROOT = Path(__file__).parents[2]
_ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; .+?)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)


def _locked(name: str) -> dict[tuple[str, str], set[str]]:
    """The hashes of each requirement, by name and version."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return {(found[1], found[2]): set(re.findall(r"sha256:(\w+)", found[3])) for found in _ENTRY.finditer(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_no_address(name: str) -> None:
    # Nothing is left: each line belongs to a requirement of one version, with its hashes.
    assert _ENTRY.sub("", (ROOT / f"requirements/{name}.txt").read_text()) == ""
    assert len(_locked(name)) > 50


def test_a_larger_lock_has_what_the_smaller_ones_have() -> None:
    server, embedded, dev = (set(_locked(name)) for name in LOCKS)
    assert server < embedded < dev


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of components, as `make dist` writes it. There the tool also checks it against CycloneDX's schema."""
    return _list_components(tmp_path_factory.mktemp("dist") / "first.json")


def _list_components(target: Path) -> Path:
    planned = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/dev", "dist"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    python, *command = shlex.split(planned.stdout.splitlines()[-1])
    assert python == ".venv/bin/python"
    assert command[-2:] == ["--output-file", "dist/ringback.cdx.json"]
    done = subprocess.run(
        [sys.executable, *command[:-1], target, "--no-validate"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return target


def test_every_locked_requirement_is_a_component(components: Path) -> None:
    listed: dict[tuple[str, str], set[str]] = {}
    for component in json.loads(components.read_text())["components"]:
        assert component["purl"] == f"pkg:pypi/{component['name']}@{component['version']}"
        references: list[dict[str, Any]] = component["externalReferences"]
        listed[component["name"], component["version"]] = {
            found["content"] for reference in references for found in reference["hashes"] if found["alg"] == "SHA-256"
        }
    assert listed == _locked("server")


def test_the_list_says_what_it_is_of(components: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    described = json.loads(components.read_text())
    product = described["metadata"]["component"]
    assert (product["name"], product["version"]) == (project["name"], project["version"])
    assert [found["license"]["id"] for found in product["licenses"]] == [project["license"]]


def test_the_same_lock_gives_the_same_list(components: Path) -> None:
    again = _list_components(components.with_name("again.json"))
    assert again.read_bytes() == components.read_bytes()
