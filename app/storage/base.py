"""The storage port."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StorageError(Exception):
    """The bytes could not be written or read. The text says where."""


class NoSuchObject(StorageError):
    """There is no object under this key."""


class TooLarge(StorageError):
    """The recording is larger than allowed."""


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    size_bytes: int
    sha256: str


class Storage(Protocol):
    """The port: whole objects under keys."""

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Stored:
        """Write all chunks under the key, or nothing. Replaces an earlier object.

        Raises `TooLarge` after `max_bytes`, and `StorageError` if the object cannot be written.
        """
        ...

    def local_copy(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file with the object's bytes, while the block runs. Raises `NoSuchObject`, `StorageError`."""
        ...

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises `NoSuchObject`, `StorageError`."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects under these keys, and what an interrupted `put` left. A missing object is not an error.

        Raises `StorageError` if something cannot be deleted.
        """
        ...

    async def is_empty(self) -> bool:
        """Whether nothing is stored. Raises `StorageError`."""
        ...
