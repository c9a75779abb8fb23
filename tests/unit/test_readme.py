"""README tells the truth."""

from pathlib import Path

from tools.settings_table import table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_settings() -> None:
    shown = README.split("<!-- settings", 1)[1].split("|---|---|---|\n", 1)[1].split("\n<!-- /settings -->")[0]
    assert shown == table(), "run `python tools/settings_table.py` and paste"


def test_what_it_names_exists() -> None:
    for line in README.splitlines():
        if line.startswith("| `app/") or line.startswith("| `worker/") or line.startswith("| `bench/"):
            first = line.split("|")[1].split("`")[1::2]
            folder = "app/"
            for name in first:
                path = ROOT / (name if "/" in name else folder + name)
                assert path.exists(), name
