"""`ringback doctor`: what is wrong with the installation, and how to fix it."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from app.cli.common import console, failures_explained

if TYPE_CHECKING:
    from app.doctor_machine import CheckLine

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@failures_explained
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also write a ZIP file for whoever helps you; it has no secrets and no numbers"),
    ] = None,
) -> None:
    """Examine the whole installation, and say how to fix what is wrong. Exit code 1 if anything is an error."""
    lines = asyncio.run(_examine(as_json))
    if as_json:
        console.print(json.dumps([asdict(line) for line in lines], indent=1), soft_wrap=True)
    if bundle is not None:
        from app import support_bundle

        asyncio.run(support_bundle.write(bundle, lines))
        if not as_json:
            console.print(f"\n{bundle} is for whoever helps you. Look into it before you send it", soft_wrap=True)
    raise typer.Exit(any(line.level == "error" for line in lines))


async def _examine(as_json: bool) -> "list[CheckLine]":
    from app import doctor
    from app.cli.migrate import get_head

    lines = []
    async for line in doctor.examine(get_head()):
        lines.append(line)
        if not as_json:
            console.print(
                Text(f"{line.level:<8}", _COLOURS[line.level]) + Text(f"{line.check:<11} {line.seen}"), soft_wrap=True
            )
            if line.fix:
                console.print(f"{'':<20}{line.fix}", soft_wrap=True)
    return lines
