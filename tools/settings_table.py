"""Writes the tables of docs/settings.md from the classes that read the settings. A test compares the two."""

import re
from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from app.settings import Settings
from app.telephony.asterisk import AsteriskOptions

PAGE = Path(__file__).parents[1] / "docs/settings.md"
TABLES: dict[str, type[BaseSettings]] = {"settings": Settings, "asterisk settings": AsteriskOptions}
_HEADER = "| variable | default | |\n|---|---|---|\n"


def table(settings: type[BaseSettings]) -> str:
    """A Markdown table with one row for each setting."""
    prefix = settings.model_config["env_prefix"]
    rows = []
    for name, field in settings.model_fields.items():
        if name == "embedded":
            continue  # only `ringback up` sets it
        default = "**required**" if field.default is PydanticUndefined else _shown(field.default)
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |\n")
    return _HEADER + "".join(rows)


def fill(page: str) -> str:
    """The page with each table written anew between its markers."""
    for name, settings in TABLES.items():
        block = f"<!-- {name} -->\n{table(settings)}<!-- /{name} -->"
        page, replaced = re.subn(f"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _: block, page, flags=re.DOTALL)  # noqa: B023
        assert replaced == 1, name
    return page


def _shown(default: object) -> str:
    return "" if default in (None, "") else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
