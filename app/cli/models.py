"""`ringback models`: speech models on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.common import console, fail, failures_explained

if TYPE_CHECKING:
    from app.transcription.catalogue import CatalogueModel

app = typer.Typer(help="Speech models: what is here, fetch one, convert one, verify.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A Whisper model (`small`, `large-v3`, …) or a hub repository")]


def _folder() -> Path:
    from app.settings import data_dir_from_environment

    return data_dir_from_environment() / "models"


@app.command("list")
@failures_explained
def list_() -> None:
    """List models: bundled, fetched, those that can be fetched, and those for the languages of India."""
    from app.transcription.catalogue import CATALOGUE
    from app.transcription.models import list_models

    table = Table("model", "state", "size", box=None)
    table.add_column("folder", overflow="fold")
    for model in list_models(_folder()):
        size = f"{model.size_bytes / 1e6:.0f} MB" if model.folder else ""
        table.add_row(model.name, model.state, size, str(model.folder or ""))
    console.print(table)
    console.print("\nFor the languages of India, with public word error rates in percent on Hindi:\n", soft_wrap=True)
    table = Table(box=None)
    table.add_column("model", no_wrap=True, min_width=max(len(each.name) for each in CATALOGUE))
    for title in ("telephone", "others", "size", "wants", "languages", "get it"):
        table.add_column(title)
    for each in CATALOGUE:
        mark = "" if each.is_checked else " *"
        table.add_row(
            each.name,
            f"{each.telephone_wer}{mark}" if each.telephone_wer else "",
            f"{each.other_wer}{mark}",
            f"{each.gigabytes} GB",
            each.hardware,
            each.languages,
            _how_to_get(each),
        )
    console.print(table)
    console.print(
        "\n* not checked at its source. None was measured here. The sources: docs/speech-engines.md", soft_wrap=True
    )


def _how_to_get(model: "CatalogueModel") -> str:
    if not model.is_fetched:
        return "by hand, then models convert"
    return "models fetch" + (", converts it" if model.form == "Transformers" else "")


@app.command()
@failures_explained
def fetch(name: Name) -> None:
    """Download a model into the data folder. One without a CTranslate2 form is converted."""
    from app.transcription.conversion import fetch as fetch_model

    console.print(f"Fetching {name} …")
    folder = fetch_model(name, _folder())
    _say_how_to_use(name, folder)


@app.command()
@failures_explained
def convert(
    source: Annotated[str, typer.Argument(help="A folder as Transformers saves it, or a hub repository")],
    name: Annotated[str | None, typer.Option(help="The model's name here, when absent that of the folder")] = None,
) -> None:
    """Convert a Whisper model to CTranslate2's form. Needs `pip install transformers torch`."""
    from app.transcription.conversion import convert as convert_model
    from app.transcription.conversion import fetch as fetch_model

    console.print(f"Converting {source} …")
    path = Path(source)
    if path.is_dir():
        name = name or path.resolve().name
        folder = convert_model(path, _folder(), name)
    elif name is not None:
        fail(f"There is no folder {source}. A model of the hub keeps its name: leave out --name")
    else:
        name, folder = source, fetch_model(source, _folder())
    _say_how_to_use(name, folder)


def _say_how_to_use(name: str, folder: Path) -> None:
    is_onnx = (folder / "assets").is_dir()
    setting = f"RINGBACK_INDICCONFORMER_MODEL={folder}" if is_onnx else f"RINGBACK_WHISPER_MODEL={name}"
    console.print(f"{name} is in {folder}. Use it: {setting}", soft_wrap=True)


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
