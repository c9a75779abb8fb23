"""Recordings in a folder."""

import asyncio
import hashlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from app.storage.base import NoSuchObject, StorageError, Stored, TooLarge

_CHUNK_BYTES = 256 * 1024
_PARTIAL = ".part"


class FolderStorage:
    """Files under one folder. All workers must see it, so on several machines it is a shared volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Stored:
        """Write all chunks under the key, or nothing. Replaces an earlier file.

        Raises `TooLarge` after `max_bytes`, and `StorageError` if the folder cannot be written.
        """
        target = self._path(key)
        partial = target.with_name(f".{target.name}.{uuid4().hex}{_PARTIAL}")
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
            with suppress(OSError):  # it is gone after a success, and its folder may never have existed
                partial.unlink()
        return Stored(key, size, digest.hexdigest())

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        """A file with the bytes, while the block runs. Raises `StorageError` if there is none."""
        path = self._path(key)
        if not path.is_file():
            raise NoSuchObject(f"the recording {key} is no longer in {self._folder}")
        yield path

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises `StorageError` if there is no file."""
        path = self._path(key)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise NoSuchObject(f"the recording {key} is no longer in {self._folder}") from error

        async def chunks() -> AsyncIterator[bytes]:
            with file:
                file.seek(start)
                left = end - start
                while left > 0 and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk

        return chunks()

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the files under these keys, and what an interrupted `put` left. A missing file is not an error."""
        try:
            await asyncio.to_thread(_delete_all, [self._path(key) for key in keys])
        except OSError as error:
            raise StorageError(f"cannot delete {error.filename}: {error.strerror}") from error

    async def is_empty(self) -> bool:
        """Whether nothing is stored."""
        recordings = self._folder / "recordings"
        return not await asyncio.to_thread(lambda: any(path.is_file() for path in recordings.rglob("*")))

    def _path(self, key: str) -> Path:
        path = (self._folder / key).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise StorageError(f"{key!r} is no storage key")
        return path


def _delete_all(paths: list[Path]) -> None:
    names: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name)
    for folder, wanted in names.items():
        for found in folder.iterdir() if folder.is_dir() else ():
            whole = found.name[1:].rsplit(".", 2)[0] if found.name.endswith(_PARTIAL) else found.name
            if whole in wanted:
                found.unlink(missing_ok=True)
