from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage import FolderStorage, StorageError, TooLarge


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken() -> AsyncIterator[bytes]:
    yield b"half"
    raise ConnectionError("gone")


async def test_bytes_are_stored_whole(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    stored = await storage.put("a/b.wav", chunks(b"one", b"two"), max_bytes=6)
    assert (stored.key, stored.size_bytes) == ("a/b.wav", 6)
    async with storage.local_copy("a/b.wav") as path:
        assert path.read_bytes() == b"onetwo"
    await storage.put("a/b.wav", chunks(b"again"), max_bytes=6)
    async with storage.local_copy("a/b.wav") as path:
        assert path.read_bytes() == b"again"


async def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    with pytest.raises(TooLarge):
        await storage.put("a", chunks(b"one", b"two"), max_bytes=5)
    with pytest.raises((ConnectionError, StorageError)):
        await storage.put("a", broken(), max_bytes=100)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="no longer"):
        async with storage.local_copy("a"):
            pass


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../outside"])
async def test_no_key_leads_outside(tmp_path: Path, key: str) -> None:
    with pytest.raises(StorageError, match="no storage key"):
        await FolderStorage(tmp_path / "inside").put(key, chunks(b"x"), max_bytes=10)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write recordings"):
        await FolderStorage(tmp_path / "file").put("a", chunks(b"x"), max_bytes=10)
