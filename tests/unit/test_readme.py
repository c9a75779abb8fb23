"""README tells the truth."""

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from app.settings import Settings
from app.telephony.asterisk import AsteriskOptions
from tools.settings_table import table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("name", "settings"), [("settings", Settings), ("asterisk settings", AsteriskOptions)])
def test_the_settings_table_is_the_settings(name: str, settings: type[BaseSettings]) -> None:
    shown = README.split(f"<!-- {name}", 1)[1].split("|---|---|---|\n", 1)[1].split(f"\n<!-- /{name} -->")[0]
    assert shown == table(settings), "run `python tools/settings_table.py` and paste"


def test_what_it_names_exists() -> None:
    for line in README.splitlines():
        if line.startswith("| `app/") or line.startswith("| `worker/") or line.startswith("| `bench/"):
            first = line.split("|")[1].split("`")[1::2]
            folder = "app/"
            for name in first:
                path = ROOT / (name if "/" in name else folder + name)
                assert path.exists(), name
