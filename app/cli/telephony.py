"""`ringback telephony`: whether the telephony system is ready for calls, and what to do if not."""

import asyncio

import typer
from rich.text import Text

from app.cli.common import console, failures_explained

app = typer.Typer(help="The telephony system that dials.", no_args_is_help=True)


@app.callback()
def telephony() -> None:
    """The telephony system that dials."""


@app.command()
@failures_explained
def check() -> None:
    """Examine everything that a call needs, in order, and say how to fix what is missing. Nobody is called."""
    from app import providers
    from app.settings import get_settings

    async def look() -> bool:
        provider = providers.telephony(get_settings())
        console.print(f"{provider.name}:")
        in_order = True
        try:
            async for finding in provider.check():
                in_order = in_order and finding.ok
                mark = Text("  ok      ", "green") if finding.ok else Text("  MISSING ", "red")
                console.print(mark + Text(f"{finding.what:<14} {finding.seen}"), soft_wrap=True)
                if not finding.ok:
                    console.print(f"          {'':<14} {finding.fix}", soft_wrap=True)
        finally:
            await provider.aclose()
        return in_order

    if not asyncio.run(look()):
        raise typer.Exit(1)
    console.print("Ready for a call: ringback call CUSTOMER AGENT --user EMAIL")
