"""Writes the tables of docs/settings.md from the classes that read the settings. A test compares the two."""

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticUndefined

from app import providers
from app.options import Options
from app.settings import Settings

PAGE = Path(__file__).parents[1] / "docs/settings.md"
TABLES: dict[str, type[Options]] = {"Server": Settings, **providers.OPTIONS}
_CHOICES: dict[str, Iterable[str]] = {
    "telephony_provider": providers.TELEPHONY,
    "recognizer": providers.RECOGNIZERS,
}
_HEADER = "| Variable | Default | Meaning |\n|---|---|---|\n"


def table(options: type[Options]) -> str:
    """A Markdown table with one row for each setting."""
    rows = []
    for name, field in options.model_fields.items():
        if name == "embedded":
            continue  # only `ringback up` sets it
        default = providers.DEFAULTS.get(name, field.default) if options is Settings else field.default
        choices = ", ".join(f"`{choice}`" for choice in _CHOICES.get(name, ()))
        description = f"{field.description}: {choices}" if choices else field.description
        rows.append(f"| `{options.variable(name)}` | {_shown(default)} | {description} |\n")
    return _HEADER + "".join(rows)


def fill(page: str) -> str:
    """The page with a new table between each pair of markers."""
    for title, options in TABLES.items():
        block = f"<!-- {title} -->\n{table(options)}<!-- /{title} -->"
        page, replaced = re.subn(f"<!-- {title} -->\n.*?<!-- /{title} -->", lambda _: block, page, flags=re.DOTALL)  # noqa: B023
        assert replaced == 1, f"docs/settings.md needs one pair of markers: <!-- {title} --> and <!-- /{title} -->"
    return page


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "**required**"
    return "" if default in (None, "") else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
