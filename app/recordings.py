"""A call's recording: stored once, then transcribed."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, tasks, transcripts
from app.models import Call, Recording, Task, TaskKind, Transcript, TranscriptStatus
from app.storage import Stored

MAX_BYTES = 512 * 1024 * 1024
"""A recording above this is refused: nine hours of two-channel telephone audio."""

_ENDINGS = {
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/mp4": ".m4a",
}
_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".m4a": "audio/mp4"}


def audio_type(said: str, url: str) -> str:
    """Of a recording that a server handed out: what it said, if that is audio, else what the URL's name says. So it is
    never a page, whatever somebody names as a recording."""
    if said.startswith("audio/"):
        return said
    return _TYPES.get(PurePosixPath(urlsplit(url).path).suffix.lower(), "application/octet-stream")


def storage_key(call_id: str, content_type: str) -> str:
    """Where this call's recording goes: spread over folders, so that none holds a million files."""
    return f"recordings/{call_id[-2:]}/{call_id}{_ENDINGS.get(content_type, '')}"


async def save(session: AsyncSession, call_id: str, stored: Stored, content_type: str) -> None:
    """The recording is stored; its transcript is owed from now on, if one was asked for."""
    await callbacks.lock(session, call_id)
    values = {
        "storage_key": stored.key,
        "content_type": content_type,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
    }
    await session.execute(
        insert(Recording)
        .values(call_id=call_id, **values)
        .on_conflict_do_update(index_elements=["call_id"], set_=values)
    )
    await callbacks.tell_recording(session, call_id)
    status = await session.scalar(select(Transcript.status).where(Transcript.call_id == call_id))
    if status != TranscriptStatus.DISABLED:
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def give_up(session: AsyncSession, call_id: str, reason: str) -> None:
    """There will be no recording, and so no transcript; unless another is looked for meanwhile, of which a late report
    told."""
    await callbacks.lock(session, call_id)
    if await session.scalar(select(Task.id).filter_by(call_id=call_id, kind=TaskKind.FETCH_RECORDING).limit(1)):
        return
    await callbacks.tell_recording(session, call_id)
    await transcripts.fail(session, call_id, reason)


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """What a download needs to know."""

    owner_id: str
    storage_key: str
    content_type: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """What a browser saves it as."""
        return self.storage_key.rpartition("/")[2]


async def find_for_download(session: AsyncSession, call_id: str) -> StoredRecording | None:
    """The call's recording and whose it is."""
    if not call_id.isascii() or "\0" in call_id:
        return None
    query = (
        select(Call.user_id, Recording.storage_key, Recording.content_type, Recording.size_bytes, Recording.sha256)
        .join(Call, Call.id == Recording.call_id)
        .where(Recording.call_id == call_id)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else StoredRecording(*row)


async def find(session: AsyncSession, call_id: str) -> Recording | None:
    return (await session.scalars(select(Recording).where(Recording.call_id == call_id))).one_or_none()
