"""Prints README's table of settings from the classes that read them. A test holds the two together."""

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from app.settings import Settings
from app.telephony.asterisk import AsteriskOptions


def table(settings: type[BaseSettings]) -> str:
    """Markdown, a row a setting, without the header."""
    prefix = settings.model_config["env_prefix"]
    rows = []
    for name, field in settings.model_fields.items():
        if name == "embedded":
            continue  # set by `ringback up`, by nobody else
        default = "**required**" if field.default is PydanticUndefined else _shown(field.default)
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    return "" if default is None else f"`{default}`"


if __name__ == "__main__":
    print(table(Settings), table(AsteriskOptions), sep="\n\n")
