"""Gets models that are not published in CTranslate2's form, which Whisper needs here: converts them.

The conversion needs `transformers` and `torch`. They are no dependencies of Ringback, because they take gigabytes, and
the converted model does not need them. Code that a model brings is never run.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from app.transcription import models
from app.transcription.catalogue import CATALOGUE
from app.transcription.models import ModelError, NoCTranslate2Form, explain_hub_error

_NEEDED = ("transformers", "torch")
_KEPT = ("tokenizer.json", "preprocessor_config.json")
_NOT_USED = ("assets/joint*", "assets/rnnt*", "*.ts", "*.py", "*.md")
"""Of a model in ONNX: what IndicConformer's recognizer does not read."""


def fetch(name: str, models_dir: Path) -> Path:
    """Download a model in any form of the catalogue, and convert it if that is needed. Returns its folder. Raises
    `ModelError`."""
    entry = next((each for each in CATALOGUE if each.name == name), None)
    if entry is not None and entry.url is not None:
        raise ModelError(
            f"{name} is in no hub. Download it as {entry.url} says, unpack it, and run "
            f"`ringback models convert FOLDER --name {name}`"
        )
    if entry is not None and entry.form == "ONNX":
        target = models_dir / name.replace("/", "--")
        _download(name, target, ignore=_NOT_USED)
        return target
    try:
        return models.fetch(name, models_dir)
    except NoCTranslate2Form:
        _require_converter()
        models_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=models_dir, prefix=".download-") as downloaded:
            _download(name, Path(downloaded), only=_transformers_files(name))
            return convert(Path(downloaded), models_dir, name)


def convert(source: Path, models_dir: Path, name: str) -> Path:
    """Convert a Whisper model in the folder `source`, as Transformers saves it, to CTranslate2's form. Returns the
    folder of the model `name`, with weights of 16 bits. Raises `ModelError`."""
    _check_is_whisper(source)
    _require_converter()
    target = models_dir / name.replace("/", "--")
    models_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=models_dir, prefix=".convert-") as scratch:
        made = Path(scratch) / "model"
        try:
            with _with_tokenizer(source, Path(scratch)) as complete:
                _run_converter(complete, made)
        except Exception as error:  # whatever transformers or torch raise
            raise ModelError(f"{source} could not be converted: {error}") from error
        models.write_manifest(made)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target


def _run_converter(source: Path, target: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    kept = [name for name in _KEPT if (source / name).is_file()]
    TransformersConverter(str(source), copy_files=kept, load_as_float16=True).convert(
        str(target), quantization="float16"
    )


@contextmanager
def _with_tokenizer(source: Path, scratch: Path) -> Iterator[Path]:
    """A folder of the model with `tokenizer.json`. Without one, faster-whisper would look for another in the hub."""
    if (source / "tokenizer.json").is_file():
        yield source
        return
    from transformers import AutoTokenizer

    complete = scratch / "source"
    complete.mkdir()
    for path in source.iterdir():
        (complete / path.name).symlink_to(path.resolve())
    saved = scratch / "tokenizer"
    AutoTokenizer.from_pretrained(str(source)).save_pretrained(str(saved))
    shutil.copy(saved / "tokenizer.json", complete / "tokenizer.json")
    yield complete


def _check_is_whisper(source: Path) -> None:
    if (source / "model.bin").is_file():
        raise ModelError(f"{source} is in CTranslate2's form already. Use it: RINGBACK_WHISPER_MODEL={source}")
    try:
        kind = json.loads((source / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{source} is no model as Transformers saves it: its config.json cannot be read") from None
    if kind != "whisper":
        raise ModelError(f"{source} is a model of the type {kind!r}. Only Whisper models can be converted")


def _require_converter() -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ModelError(
            f"Converting needs {' and '.join(missing)}: `pip install transformers torch`. They are needed once, so "
            "you can convert on another machine, and copy the converted folder"
        )


def _transformers_files(name: str) -> list[str]:
    from huggingface_hub import list_repo_files

    with explain_hub_error(name):
        has_safetensors = any(file.endswith(".safetensors") for file in list_repo_files(name))
    return ["*.json", "*.txt", "*.safetensors" if has_safetensors else "pytorch_model*.bin"]


def _download(name: str, target: Path, *, only: list[str] | None = None, ignore: tuple[str, ...] = ()) -> None:
    from huggingface_hub import snapshot_download

    with explain_hub_error(name, target):
        snapshot_download(name, local_dir=target, allow_patterns=only, ignore_patterns=list(ignore))
