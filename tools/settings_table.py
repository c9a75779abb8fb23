"""Prints README's table of settings from the class that reads them. A test holds the two together."""

from pydantic_core import PydanticUndefined

from app.settings import Settings


def table() -> str:
    """Markdown, a row a setting, without the header."""
    rows = []
    for name, field in Settings.model_fields.items():
        if name == "embedded":
            continue  # set by `ringback up`, by nobody else
        default = "**required**" if field.default is PydanticUndefined else _shown(field.default)
        rows.append(f"| `RINGBACK_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    return "" if default is None else f"`{default}`"


if __name__ == "__main__":
    print(table())
