"""`ringback models`: speech models on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli.common import console, fail, failures_explained

app = typer.Typer(help="Speech models: what is here, fetch one, verify.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A Whisper model (`small`, `large-v3`, …) or a hub repository")]


def _folder() -> Path:
    from app.settings import data_dir_from_environment

    return data_dir_from_environment() / "models"


@app.command("list")
@failures_explained
def list_() -> None:
    """List models: bundled, fetched, and those that can be fetched."""
    from app.transcription.models import list_models

    table = Table("model", "state", "size", box=None)
    table.add_column("folder", overflow="fold")
    for model in list_models(_folder()):
        size = f"{model.size_bytes / 1e6:.0f} MB" if model.folder else ""
        table.add_row(model.name, model.state, size, str(model.folder or ""))
    console.print(table)


@app.command()
@failures_explained
def fetch(name: Name) -> None:
    """Download a model into the data folder."""
    from app.transcription.models import fetch as fetch_model

    console.print(f"Fetching {name} …")
    folder = fetch_model(name, _folder())
    console.print(f"{name} is in {folder}. Use it: RINGBACK_WHISPER_MODEL={name}", soft_wrap=True)


@app.command()
@failures_explained
def verify(name: Annotated[str | None, typer.Argument(help="All that are here, when absent")] = None) -> None:
    """Check the files of models."""
    from app.transcription.models import list_models
    from app.transcription.models import verify as verify_model

    names = [name] if name else [model.name for model in list_models(_folder()) if model.folder]
    if not names:
        fail("There are no models here. Fetch one: ringback models fetch NAME")
    for each in names:
        verify_model(each, _folder())
        console.print(f"{each} is whole", soft_wrap=True)
