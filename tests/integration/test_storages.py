"""Both storages keep the same promises: a folder, and a bucket of a real S3-compatible server (SeaweedFS)."""

import hashlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app import providers
from app.backup_file import BackupWriter, Manifest, verify
from app.backups import dump_recordings, load_recordings
from app.settings import Settings
from app.storage import FolderStorage, S3Storage, Storage, StorageError, TooLarge

PATIENCE_SECONDS = 60
KEY, SECRET = "ringback", "a bucket's secret"


def free_ports(count: int) -> list[int]:
    """SeaweedFS also takes each port plus 10,000."""
    found: list[int] = []
    while len(found) < count:
        port = 20_000 + secrets.randbelow(20_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
    return found


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("seaweed")
    config = folder / "s3.json"
    identity = {
        "name": "ringback",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = free_ports(4)
    (folder / "data").mkdir()
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "weed"),
            "server",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            f"-master.port={master}",
            f"-volume.port={volume}",
            "-volume.max=4",
            "-filer",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.config={config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if httpx.post(f"http://127.0.0.1:{filer}/buckets/ringback/", timeout=5).status_code in (200, 201, 409):
                    httpx.get(f"http://127.0.0.1:{s3}/", timeout=5)
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{s3}"
    finally:
        process.kill()  # it holds nothing that is needed
        process.wait(PATIENCE_SECONDS)
        log.close()


@pytest.fixture(params=["folder", "s3"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path)
    monkeypatch.setenv("RINGBACK_S3_BUCKET", "ringback")
    monkeypatch.setenv("RINGBACK_S3_ENDPOINT", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("RINGBACK_S3_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("RINGBACK_S3_SECRET_ACCESS_KEY", SECRET)
    chosen = providers.storage(migrated)
    assert isinstance(chosen, S3Storage)
    return chosen


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def content_of(storage: Storage, key: str) -> bytes:
    async with storage.local_copy(key) as path:
        return path.read_bytes()


async def test_what_is_put_is_read(storage: Storage) -> None:
    big = secrets.token_bytes(3_000_000)
    stored = await storage.put("recordings/aa/one.wav", chunks(big[:1_000_000], big[1_000_000:]), max_bytes=4_000_000)
    assert (stored.key, stored.size_bytes, len(stored.sha256)) == ("recordings/aa/one.wav", 3_000_000, 64)
    assert await content_of(storage, stored.key) == big
    part = b"".join([chunk async for chunk in await storage.read(stored.key, 999_990, 2_500_001)])
    assert part == big[999_990:2_500_001]


async def test_a_second_put_replaces_the_first(storage: Storage) -> None:
    await storage.put("recordings/aa/two.wav", chunks(b"first and longer"), max_bytes=100)
    await storage.put("recordings/aa/two.wav", chunks(b"second"), max_bytes=100)
    assert await content_of(storage, "recordings/aa/two.wav") == b"second"


async def test_too_large_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(TooLarge):
        await storage.put("recordings/aa/three.wav", chunks(b"x" * 60, b"x" * 60), max_bytes=100)
    with pytest.raises(StorageError):
        await content_of(storage, "recordings/aa/three.wav")


async def test_what_breaks_off_leaves_nothing(storage: Storage) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the provider hung up")

    with pytest.raises(RuntimeError):
        await storage.put("recordings/aa/four.wav", broken(), max_bytes=100)
    with pytest.raises(StorageError):
        await content_of(storage, "recordings/aa/four.wav")


async def test_delete(storage: Storage) -> None:
    await storage.put("recordings/aa/five.wav", chunks(b"gone soon"), max_bytes=100)
    await storage.delete(["recordings/aa/five", "recordings/aa/five.wav"])
    await storage.delete(["recordings/aa/five", "recordings/aa/five.wav"])
    with pytest.raises(StorageError, match="no longer"):
        await content_of(storage, "recordings/aa/five.wav")
    with pytest.raises(StorageError, match="no longer"):
        await storage.read("recordings/aa/five.wav", 0, 1)


async def test_a_wrong_secret_says_so(s3_endpoint: str) -> None:
    wrong = S3Storage(
        "ringback", endpoint=s3_endpoint, region="us-east-1", access_key_id=KEY, secret_access_key="wrong"
    )
    with pytest.raises(StorageError, match="cannot write recordings to the bucket ringback"):
        await wrong.put("recordings/aa/six.wav", chunks(b"x"), max_bytes=100)


async def test_recordings_are_saved_and_restored(storage: Storage, tmp_path: Path) -> None:
    await storage.put("recordings/aa/seven.wav", chunks(b"what was said"), max_bytes=100)
    assert not await storage.is_empty()
    right, wrong = hashlib.sha256(b"what was said").hexdigest(), "0" * 64
    lines = [f"recordings/aa/{name}\t{sha256}\n".encode() for name, sha256 in (("seven.wav", right), ("no.wav", wrong))]
    with (tmp_path / "backup").open("wb") as file, BackupWriter(file) as writer:
        content = await dump_recordings(storage, writer, lines)
        writer.finish(
            Manifest(
                ringback="1",
                revision="1",
                created_at=datetime.now(UTC),
                secret_key_id="",
                with_secret_key=False,
                tables={},
                pending={},
                recordings=content,
            )
        )
    assert (content.count, content.bytes, content.missing, content.altered) == (1, 13, ["recordings/aa/no.wav"], [])
    assert verify(tmp_path / "backup").recordings == content
    await storage.delete(["recordings/aa/seven.wav"])
    await load_recordings(storage, tmp_path / "backup")
    assert await content_of(storage, "recordings/aa/seven.wav") == b"what was said"
    await storage.delete([f"recordings/aa/{name}.wav" for name in ("one", "two", "seven")])
    assert await storage.is_empty()


async def test_a_bucket_that_cannot_be_read_is_no_bucket_without_recordings(s3_endpoint: str, tmp_path: Path) -> None:
    wrong = S3Storage(
        "ringback", endpoint=s3_endpoint, region="us-east-1", access_key_id=KEY, secret_access_key="wrong"
    )
    with pytest.raises(StorageError, match="cannot read the bucket"):
        await wrong.is_empty()
    with (
        pytest.raises(StorageError, match="cannot read the bucket"),
        (tmp_path / "backup").open("wb") as file,
        BackupWriter(file) as writer,
    ):
        await dump_recordings(wrong, writer, [b"recordings/aa/seven.wav\t0\n"])
