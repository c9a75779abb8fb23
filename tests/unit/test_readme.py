"""README and the settings page tell the truth."""

from pathlib import Path

import pytest

from app.options import Options
from tools.settings_table import GROUPS, table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("title", "options"), GROUPS.items())
def test_the_settings_tables_are_the_settings(title: str, options: type[Options]) -> None:
    assert table(options) in README, f"{title}: run `python -m tools.settings_table` and paste"


def test_what_it_names_exists() -> None:
    for line in README.splitlines():
        if line.startswith("| `app/") or line.startswith("| `worker/") or line.startswith("| `bench/"):
            first = line.split("|")[1].split("`")[1::2]
            folder = "app/"
            for name in first:
                path = ROOT / (name if "/" in name else folder + name)
                assert path.exists(), name
