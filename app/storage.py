"""Where recordings' bytes live: a folder. Keys are made by us, never from user input. A leaf."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


class StorageError(Exception):
    """The bytes could not be written or read; the text says where."""


class TooLarge(StorageError):
    """More bytes came than a recording may have."""


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    size_bytes: int
    sha256: str


class FolderStorage:
    """Files under one folder, which every worker sees (a shared volume when they are on several machines)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Stored:
        """Write all chunks under the key, whole or not at all; a second put of a key replaces the first.

        Raises `TooLarge` past `max_bytes` and `StorageError` when the folder cannot be written.
        """
        target = self._path(key)
        partial = target.with_name(f".{target.name}.{uuid4().hex}.part")
        digest = hashlib.sha256()
        size = 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > max_bytes:
                        raise TooLarge(f"the recording is larger than {max_bytes} bytes")
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            partial.replace(target)
        except OSError as error:
            raise StorageError(f"cannot write recordings to {self._folder}: {error.strerror}") from error
        finally:
            with suppress(OSError):  # it is gone after a success, and its folder may never have been
                partial.unlink()
        return Stored(key, size, digest.hexdigest())

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        """A file with the bytes, for as long as the block lasts. Raises `StorageError` if there is none."""
        path = self._path(key)
        if not path.is_file():
            raise StorageError(f"the recording {key} is no longer in {self._folder}")
        yield path

    def _path(self, key: str) -> Path:
        path = (self._folder / key).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise StorageError(f"{key!r} is no storage key")
        return path
