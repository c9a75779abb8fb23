"""Recordings in a bucket of any S3-compatible service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store
from pydantic import AnyHttpUrl, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.storage.base import NoSuchObject, StorageError, Stored, TooLarge

_CHUNK_BYTES = 1024 * 1024


class S3Options(Options):
    """Without a bucket, recordings are kept in the data folder."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_S3_")

    bucket: str | None = Field(None, description="Keep recordings in this bucket; absent: in the data folder")
    endpoint: AnyHttpUrl | None = Field(None, description="Where the bucket is, if not at AWS")
    region: str = Field("us-east-1", description="Its region")
    access_key_id: str | None = Field(None, description="Its key; absent: the machine's own credentials")
    secret_access_key: SecretStr | None = Field(None, description="That key's secret")


class S3Storage:
    """Objects of one bucket. Each upload and each recognition uses a temporary file."""

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str | None,
        region: str,
        access_key_id: str | None,
        secret_access_key: str | None,
    ) -> None:
        """Without a key, the machine's own credentials are used, as AWS defines them."""
        self._bucket = bucket
        given: dict[str, Any] = {
            "endpoint": endpoint,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
        }
        self._store = S3Store(
            bucket,
            region=region,
            client_options={"allow_http": True, "timeout": "300s", "connect_timeout": "10s"},
            retry_config={"max_retries": 2},
            **{name: value for name, value in given.items() if value is not None},
        )

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Stored:
        """Write all chunks under the key, or nothing. Replaces an earlier object.

        Raises `TooLarge` after `max_bytes`, and `StorageError` if the bucket cannot be written.
        """
        digest = hashlib.sha256()
        size = 0
        with NamedTemporaryFile() as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(f"the recording is larger than {max_bytes} bytes")
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(file.flush)
            try:
                await obstore.put_async(self._store, key, Path(file.name))
            except (BaseError, OSError) as error:
                raise StorageError(f"cannot write recordings to the bucket {self._bucket}: {error}") from error
        return Stored(key, size, digest.hexdigest())

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        """A file with the bytes, while the block runs. Raises `StorageError` if there is none."""
        with NamedTemporaryFile() as file:
            try:
                answer = await obstore.get_async(self._store, key)
                async for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                    await asyncio.to_thread(file.write, bytes(chunk))
            except (BaseError, OSError) as error:
                raise self._unreadable(key, error) from error
            await asyncio.to_thread(file.flush)
            yield Path(file.name)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises `StorageError` if there is no object."""
        try:
            answer = await obstore.get_async(self._store, key, options={"range": (start, end)})
        except (BaseError, OSError) as error:
            raise self._unreadable(key, error) from error

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

        return chunks()

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects under these keys. A missing object is not an error. Raises `StorageError`.

        An interrupted `put` only leaves parts of an upload, which a lifecycle rule of the bucket deletes.
        """
        if not keys:
            return
        try:
            await obstore.delete_async(self._store, list(keys))
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot delete {keys[0]} from the bucket {self._bucket}: {error}") from error

    async def is_empty(self) -> bool:
        """Whether no recording is stored. Raises `StorageError`."""
        try:
            async for found in obstore.list(self._store, prefix="recordings/", chunk_size=1):
                return not found
        except (BaseError, OSError) as error:
            raise StorageError(f"cannot read the bucket {self._bucket}: {error}") from error
        return True

    def _unreadable(self, key: str, error: BaseException) -> StorageError:
        if isinstance(error, NotFoundError | FileNotFoundError):
            return NoSuchObject(f"the recording {key} is no longer in the bucket {self._bucket}")
        return StorageError(f"cannot read the bucket {self._bucket}: {error}")
