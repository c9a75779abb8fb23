"""The files about the project agree with each other."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pre_commit_runs_what_make_check_runs() -> None:
    entries = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/dev", "check"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert entries
    assert entries == planned.stdout.splitlines()


def test_make_prints_each_target_with_a_line() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared
    assert set(re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE)) == set(declared[1].split())


def test_the_image_has_the_version_of_the_package() -> None:
    assert f"\nARG VERSION={version('ringback')}\n" in (ROOT / "Dockerfile").read_text()


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == version("ringback")
