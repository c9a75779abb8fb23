"""Whisper's models: bundled, fetched into the data folder, or in any folder.

Nothing is downloaded without being asked for. A missing model is a clear error, and only `ringback models fetch NAME`
uses the network.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.transcription import bundled
from app.transcription.base import TranscriptionError

BUNDLED = "base"
"""The model that is used unless another is named: Whisper base, multilingual."""

_WEIGHTS = "model.bin"
_MANIFEST = "ringback-manifest.json"
_FILES = [_WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.*"]

State = Literal["bundled", "fetched", "not fetched"]


class ModelError(TranscriptionError):
    """A model is missing or damaged, or could not be fetched. The text says what to do."""


class NoCTranslate2Form(ModelError):
    """What was fetched is in another form. `conversion` can convert it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name. `folder` is None if it is not on this machine."""

    name: str
    state: State
    folder: Path | None
    size_bytes: int


def resolve(name: str, models_dir: Path) -> Path | None:
    """The folder of a model, given its name or a path. None if it is a bundled one, which `bundled.read` reads.

    Raises `ModelError` if it is missing.
    """
    for folder in (Path(name), _fetched(name, models_dir)) if "/" in name else (_fetched(name, models_dir),):
        if (folder / _WEIGHTS).is_file():
            return folder
    if bundled.folders(name):
        return None
    raise ModelError(
        f"The speech model {name!r} is not here. Fetch it with `ringback models fetch {name}`; on a machine "
        f"without a network, copy the folder of its CTranslate2 conversion to {_fetched(name, models_dir)}"
    )


def files_of(name: str) -> dict[str, bytes]:
    """A bundled model's files, verified. Raises `ModelError` if they are damaged."""
    try:
        return bundled.read(name)
    except bundled.DamagedError as error:
        raise ModelError(f"The bundled model {error} is damaged. Delete .venv and install again") from None


def list_models(models_dir: Path) -> list[Model]:
    """The bundled models, the models in the data folder, and those that could be fetched."""
    from faster_whisper.utils import available_models

    here = {path.name for path in models_dir.glob("*") if (path / _WEIGHTS).is_file()}
    ours = [name for name in bundled.NAMES if bundled.folders(name)]
    others = (name for name in available_models() if name not in {*ours, *here})
    names = [*ours, *sorted(here - set(ours)), *others]
    return [_describe(name, models_dir) for name in names]


def fetch(name: str, models_dir: Path) -> Path:
    """Download a model, named by faster-whisper or as a hub repository. Shows progress, and returns the model's folder.

    Raises `ModelError` without a network, and if there is no such model. `NoCTranslate2Form` if it is in another form.
    """
    from faster_whisper.utils import _MODELS
    from huggingface_hub import snapshot_download

    target = models_dir / name.replace("/", "--")
    with explain_hub_error(name, target):
        snapshot_download(_MODELS.get(name, name), local_dir=target, allow_patterns=_FILES)
    if not (target / _WEIGHTS).is_file():
        raise NoCTranslate2Form(f"{name!r} is no CTranslate2 Whisper model: it has no {_WEIGHTS}")
    write_manifest(target)
    return target


@contextmanager
def explain_hub_error(name: str, target: Path | None = None) -> Iterator[None]:
    """Raises `ModelError` for what the hub's client raises. `target`: where the model can be copied to by hand."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        by_hand = f"; on a machine without one, copy the model's folder to {target}" if target else ""
        raise ModelError(
            f"The speech model {name!r} could not be fetched ({reason}). Check the name (`ringback models list`) and "
            f"the network{by_hand}",
            retryable=True,
        ) from error


def write_manifest(folder: Path) -> None:
    """Write the hashes of a model's files, for `verify`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != _MANIFEST)
    (folder / _MANIFEST).write_text(json.dumps({path.name: _sha256(path) for path in files}, indent=1))


def verify(name: str, models_dir: Path) -> None:
    """Check a model's files against what was published or fetched. Raises `ModelError` with the wrong file."""
    folder = resolve(name, models_dir)
    if folder is None:
        files_of(name)
        return
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise ModelError(f"{folder} was not fetched by `ringback models fetch`: there is nothing to verify it against")
    for file, expected in json.loads(manifest.read_text()).items():
        if not (folder / file).is_file() or _sha256(folder / file) != expected:
            raise ModelError(f"{folder / file} is damaged. Delete {folder} and run `ringback models fetch {name}`")


def _describe(name: str, models_dir: Path) -> Model:
    fetched = _fetched(name, models_dir)
    if (fetched / _WEIGHTS).is_file():
        return Model(name, "fetched", fetched, _size([fetched]))
    folders = bundled.folders(name)
    if folders:
        return Model(name, "bundled", folders[0], _size(folders))
    return Model(name, "not fetched", None, 0)


def _size(folders: list[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir() if path.is_file())


def _fetched(name: str, models_dir: Path) -> Path:
    return models_dir / name.replace("/", "--")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
