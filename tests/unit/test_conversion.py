"""Models that have to be converted. The converter itself is faked, because it needs gigabytes of PyTorch."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ctranslate2.converters
import huggingface_hub
import pytest

from app.transcription import conversion, models
from app.transcription.catalogue import CATALOGUE
from app.transcription.models import ModelError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What Transformers saves of a Whisper model."""
    folder = tmp_path / "whisper-hindi"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A fake of CTranslate2's converter. Returns how it was called."""
    calls: list[dict[str, Any]] = []

    class FakeConverter:
        def __init__(self, path: str, **options: Any) -> None:
            self._path = Path(path)
            self._options = options

        def convert(self, target: str, **options: Any) -> None:
            calls.append({**self._options, **options})
            folder = Path(target)
            folder.mkdir()
            (folder / "model.bin").write_bytes(b"converted " + (self._path / "model.safetensors").read_bytes())
            for name in self._options["copy_files"]:
                (folder / name).write_bytes((self._path / name).read_bytes())

    monkeypatch.setattr(ctranslate2.converters, "TransformersConverter", FakeConverter)
    monkeypatch.setattr(conversion, "_NEEDED", ())
    return calls


def test_a_folder_is_converted(tmp_path: Path, source: Path, converter: list[dict[str, Any]]) -> None:
    folder = conversion.convert(source, tmp_path / "models", "hindi")
    assert folder == tmp_path / "models/hindi"
    assert converter == [
        {
            "copy_files": ["tokenizer.json", "preprocessor_config.json"],
            "load_as_float16": True,
            "quantization": "float16",
        }
    ]
    assert models.resolve("hindi", tmp_path / "models") == folder
    models.verify("hindi", tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["hindi"], "nothing else is left behind"


def test_a_new_conversion_replaces_the_old_one(tmp_path: Path, source: Path, converter: list[dict[str, Any]]) -> None:
    old = conversion.convert(source, tmp_path / "models", "hindi")
    (old / "stale").touch()
    assert not (conversion.convert(source, tmp_path / "models", "hindi") / "stale").exists()


def test_a_missing_tokenizer_is_made(
    tmp_path: Path, source: Path, converter: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "tokenizer.json").unlink()
    transformers = ModuleType("transformers")

    def save(folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "tokenizer.json").write_text('{"version": "made"}')

    tokenizer = SimpleNamespace(from_pretrained=lambda _: SimpleNamespace(save_pretrained=save))
    monkeypatch.setattr(transformers, "AutoTokenizer", tokenizer, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    folder = conversion.convert(source, tmp_path / "models", "hindi")
    assert json.loads((folder / "tokenizer.json").read_text()) == {"version": "made"}
    assert not (source / "tokenizer.json").exists(), "the source is not changed"


def test_without_pytorch_the_error_says_what_to_install(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install transformers torch"):
        conversion.convert(source, tmp_path / "models", "hindi")
    assert not (tmp_path / "models").exists()


def test_a_converter_that_fails_leaves_the_old_model(
    tmp_path: Path, source: Path, converter: list[dict[str, Any]]
) -> None:
    folder = conversion.convert(source, tmp_path / "models", "hindi")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="could not be converted"):
        conversion.convert(source, tmp_path / "models", "hindi")
    assert (folder / "model.bin").is_file()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["hindi"]


def _break(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_break("config.json", '{"model_type": "wav2vec2"}'), "wav2vec2"),
        (_break("config.json", "{"), "config.json cannot be read"),
        (_break("config.json", "[]"), "config.json cannot be read"),
        (_break("model.bin", ""), "RINGBACK_WHISPER_MODEL="),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    ],
)
def test_folders_that_are_no_model_to_convert(
    tmp_path: Path, source: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(source)
    with pytest.raises(ModelError, match=says):
        conversion.convert(source, tmp_path / "models", "hindi")


# From the hub, which is faked


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, source: Path) -> list[dict[str, Any]]:
    """A hub in which every repository holds the model `source`. Returns what was downloaded."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, *, local_dir: Path, **options: Any) -> str:
        asked.append({"name": name, **options})
        local_dir.mkdir(exist_ok=True, parents=True)
        wanted = options["allow_patterns"]
        for path in source.iterdir():
            if wanted is None or any(path.match(pattern) for pattern in wanted):
                (local_dir / path.name).write_bytes(path.read_bytes())
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda _: [path.name for path in source.iterdir()])
    return asked


def test_a_repository_without_ctranslate2s_form_is_converted(
    tmp_path: Path, hub: list[dict[str, Any]], converter: list[dict[str, Any]]
) -> None:
    folder = conversion.fetch("vasista22/whisper-hindi-large-v2", tmp_path / "models")
    assert folder == tmp_path / "models/vasista22--whisper-hindi-large-v2"
    assert (folder / "model.bin").read_bytes() == b"converted weights"
    assert hub[1]["allow_patterns"] == ["*.json", "*.txt", "*.safetensors"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]


def test_a_repository_with_it_is_only_downloaded(
    tmp_path: Path, source: Path, hub: list[dict[str, Any]], converter: list[dict[str, Any]]
) -> None:
    (source / "model.bin").write_bytes(b"ready")
    folder = conversion.fetch("someone/whisper-ct2", tmp_path / "models")
    assert (folder / "model.bin").read_bytes() == b"ready"
    assert converter == []
    assert len(hub) == 1


def test_old_weights_are_downloaded_where_there_are_no_others(
    tmp_path: Path, source: Path, hub: list[dict[str, Any]], converter: list[dict[str, Any]]
) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="could not be converted"):  # the fake reads the others
        conversion.fetch("someone/old", tmp_path / "models")
    assert hub[1]["allow_patterns"] == ["*.json", "*.txt", "pytorch_model*.bin"]


def test_an_onnx_model_is_downloaded_without_what_is_not_used(tmp_path: Path, hub: list[dict[str, Any]]) -> None:
    name = "ai4bharat/indic-conformer-600m-multilingual"
    assert (
        conversion.fetch(name, tmp_path / "models") == tmp_path / "models/ai4bharat--indic-conformer-600m-multilingual"
    )
    assert "assets/joint*" in hub[0]["ignore_patterns"]


def test_a_model_that_is_in_no_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"AI4Bharat/vistaar.*models convert FOLDER --name indicwhisper-medium-hi"):
        conversion.fetch("indicwhisper-medium-hi", tmp_path)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(ModelError, match="no route to host") as failed:
        conversion.fetch("vasista22/whisper-hindi-large-v2", tmp_path)
    assert failed.value.retryable


def test_the_catalogue_has_a_source_for_each_figure() -> None:
    assert len({each.name for each in CATALOGUE}) == len(CATALOGUE)
    for each in CATALOGUE:
        assert each.source.startswith("https://")
        assert each.gigabytes > 0
