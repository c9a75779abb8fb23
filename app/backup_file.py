"""A backup's file: a gzipped tar archive, written and read as a stream, so that its size costs no memory.

tables/NAME/000001.copy …   the rows of a table as COPY writes them, in parts, in the order in which they are loaded
recordings/…                each recording under its storage key
secret-key                  only if it was asked for
SHA256SUMS                  of everything above, as `sha256sum --check` reads it
manifest.json               a `Manifest`; last, so that a file without it is not whole
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from tarfile import TarError, TarFile, TarInfo
from tarfile import open as open_tar
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, Self

from pydantic import BaseModel, ValidationError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
KEY_FILE = "secret-key"

FORMAT = 1
_CHUNK_BYTES = 1024 * 1024
_LARGEST_MANIFEST = 256 * 1024 * 1024
_COMPRESSION = 1  # level 6 takes four times as long, and makes recordings a tenth smaller


class BackupError(Exception):
    """A backup cannot be made, read or restored. The text says what to do."""


class TableContent(BaseModel):
    """One table: the columns of its rows, in order, and how many rows there are."""

    columns: list[str]
    rows: int


class RecordingsContent(BaseModel):
    """The recordings of a backup."""

    count: int = 0
    bytes: int = 0
    missing: list[str] = []
    """Storage keys that the tables name and that were not there: deleted while the backup was taken, or lost."""
    altered: list[str] = []
    """Storage keys whose bytes are not those that were stored."""


class Manifest(BaseModel):
    """What is in a backup."""

    format: int = FORMAT
    ringback: str
    """The version of Ringback."""
    revision: str
    """The version of the tables."""
    created_at: datetime
    """When the rows were read, all at one moment, by the database's clock."""
    secret_key_id: str
    """Tells one RINGBACK_SECRET_KEY from another."""
    with_secret_key: bool
    tables: dict[str, TableContent]
    """In the order in which they are loaded."""
    pending: dict[str, int]
    """Tasks by kind."""
    recordings: RecordingsContent | None
    """None: left out."""
    sums_sha256: str = ""


class BackupWriter:
    """Writes a backup into a file that need not be seekable. Use with `with`: what fails ends without a manifest."""

    def __init__(self, file: BinaryIO) -> None:
        self._gzip = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=_COMPRESSION, mtime=0)
        self._tar: TarFile = open_tar(fileobj=self._gzip, mode="w|")  # noqa: SIM115  # `__exit__` closes it
        self._sums = SpooledTemporaryFile(max_size=16 * 1024 * 1024)  # noqa: SIM115  # `__exit__` closes it
        self._sums_digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sums.close()
        self._tar.close()
        self._gzip.close()

    def add(self, name: str, content: IO[bytes], size: int) -> str:
        """Add `size` bytes of this content. Returns their SHA-256."""
        hashing = _Hashing(content)
        self._write(name, hashing, size)
        line = f"{hashing.digest.hexdigest()}  {name}\n".encode()
        self._sums.write(line)
        self._sums_digest.update(line)
        return hashing.digest.hexdigest()

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add(name, BytesIO(content), len(content))

    def finish(self, manifest: Manifest) -> None:
        """Write the sums and the manifest."""
        size = self._sums.tell()
        self._sums.seek(0)
        self._write(SUMS, self._sums, size)
        whole = manifest.model_copy(update={"sums_sha256": self._sums_digest.hexdigest()})
        text = whole.model_dump_json(indent=1).encode()
        self._write(MANIFEST, BytesIO(text), len(text))

    def _write(self, name: str, content: "IO[bytes] | _Hashing", size: int) -> None:
        info = TarInfo(name)
        info.size, info.mode = size, 0o600
        self._tar.addfile(info, content)
        _forget_entries(self._tar)


def _forget_entries(tar: Any) -> None:
    """A `TarFile` remembers every entry, although a stream cannot go back to one."""
    tar.members.clear()


class _Hashing:
    """Reads a file, and computes the SHA-256 of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        read = self._file.read(size)
        self.digest.update(read)
        return read


def verify(path: Path) -> Manifest:
    """Read the whole file, and compare each sum. Raises `BackupError` if it is truncated or altered, or no backup."""
    sums, listed, last, content = hashlib.sha256(), "", "", b""
    with _damage_explained(path):
        for name, file in read_entries(path, to_the_end=True):
            last = name
            if name == MANIFEST:
                content = file.read(_LARGEST_MANIFEST)
                continue
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            if name == SUMS:
                listed = digest.hexdigest()
            else:
                sums.update(f"{digest.hexdigest()}  {name}\n".encode())
    if last != MANIFEST:
        raise BackupError(f"{path} ends too early, or is no backup of Ringback. Nothing was written. Use another one")
    manifest = _parse(path, content)
    if not manifest.sums_sha256 == listed == sums.hexdigest():
        raise BackupError(f"{path} was altered since it was made. Nothing was written. Use another backup")
    return manifest


def _parse(path: Path, content: bytes) -> Manifest:
    with suppress(ValidationError):
        manifest = Manifest.model_validate_json(content)
        if manifest.format == FORMAT:
            return manifest
    raise BackupError(f"{path} was made by another version of Ringback, which this one cannot read. Use that version")


def read_entries(path: Path, *, to_the_end: bool = False) -> Iterator[tuple[str, IO[bytes]]]:
    """The entries, each name with its file, one by one. A file can be read until the next entry is asked for.

    `to_the_end`: check the archive's own end, too.
    """
    with gzip.open(path, "rb") as unzipped:
        with open_tar(fileobj=unzipped, mode="r|") as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is None:
                    raise TarError(f"{info.name} is no file")
                yield info.name, file
                _forget_entries(tar)
        while to_the_end and unzipped.read(_CHUNK_BYTES):
            pass


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupError(
            f"{path} is damaged, or no backup of Ringback ({error}). Nothing was written. Decrypt it first if it is "
            "encrypted, or use another one"
        ) from error
