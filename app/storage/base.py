"""The port of storages, and what all of them hand on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StorageError(Exception):
    """The bytes could not be written or read; the text says where."""


class TooLarge(StorageError):
    """More bytes came than a recording may have."""


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    size_bytes: int
    sha256: str


class Storage(Protocol):
    """The port: whole objects under keys."""

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Stored:
        """Write all chunks under the key, whole or not at all; a second put of a key replaces the first.

        Raises `TooLarge` past `max_bytes` and `StorageError` when they cannot be written.
        """
        ...

    def local_copy(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file with the bytes, for as long as the block lasts. Raises `StorageError` if there is none."""
        ...

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises `StorageError` if there are none."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove what is under these keys, also what a `put` left half done. What is not there is no error.

        Raises `StorageError` when something cannot be removed.
        """
        ...
