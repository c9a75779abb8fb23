"""Prints the tables of settings for docs/settings.md, from the classes that read the settings. A test compares them."""

from collections.abc import Iterable

from pydantic_core import PydanticUndefined

from app import providers
from app.options import Options
from app.settings import Settings

GROUPS: dict[str, type[Options]] = {"Server": Settings, **providers.OPTIONS}
"""What has a table, by its title."""

_CHOICES: dict[str, Iterable[str]] = {"telephony_provider": providers.TELEPHONY, "recognizer": providers.RECOGNIZERS}


def table(options: type[Options]) -> str:
    """Markdown, one row per setting, without a header."""
    rows = []
    for name, field in options.model_fields.items():
        if name == "embedded":
            continue  # only `ringback up` sets it
        default = providers.DEFAULTS.get(name, field.default) if options is Settings else field.default
        shown = "**required**" if default is PydanticUndefined else "" if default is None else f"`{default}`"
        choices = ", ".join(f"`{choice}`" for choice in _CHOICES.get(name, ()))
        description = f"{field.description}: {choices}" if choices else field.description
        rows.append(f"| `{options.variable(name)}` | {shown} | {description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    for title, options in GROUPS.items():
        print(f"## {title}\n\n| Variable | Default | What it is |\n|---|---|---|\n{table(options)}\n")
