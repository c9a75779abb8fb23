"""A call's recording: stored once, then transcribed."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from sqlalchemy import exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, tasks, transcripts
from app.models import Call, Recording, TaskKind, Transcript, TranscriptStatus
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
    """Of a recording that a server handed out: what it said, if that is audio that we know, else what the URL's name
    says. So it is never a page, whatever somebody names as a recording."""
    if said in _ENDINGS:
        return said
    return _TYPES.get(PurePosixPath(urlsplit(url).path).suffix.lower(), "application/octet-stream")


def storage_key(call_id: str, content_type: str) -> str:
    """Where this call's recording goes: spread over folders, so that none holds a million files."""
    return _place(call_id) + _ENDINGS.get(content_type, "")


def storage_keys(call_id: str) -> list[str]:
    """Wherever this call's recording may have gone."""
    return [_place(call_id) + ending for ending in ("", *sorted(set(_ENDINGS.values())))]


def _place(call_id: str) -> str:
    return f"recordings/{call_id[-2:]}/{call_id}"


async def expect(session: AsyncSession, call_id: str) -> None:
    """There is a recording of the call: it is owed from now on, and then its transcript. One that is stored stays. With
    the call's lock."""
    if await find(session, call_id) is None:
        await tasks.restart(session, TaskKind.FETCH_RECORDING, call_id)
    elif await _wants_transcript(session, call_id):
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def save(session: AsyncSession, call_id: str, stored: Stored, content_type: str) -> None:
    """The recording is stored; its transcript is owed from now on, if one was asked for. With the call's lock."""
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
    if await _wants_transcript(session, call_id):
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def give_up(session: AsyncSession, call_id: str, reason: str) -> bool:
    """There will be no recording, and so no transcript. False: it is stored all the same. With the call's lock."""
    if await find(session, call_id) is not None:
        return False
    await callbacks.tell_recording(session, call_id)
    await transcripts.fail(session, call_id, reason)
    return True


async def is_wanted(session: AsyncSession, call_id: str) -> bool:
    """Whether the call has, or is still to get, a recording."""
    stored = exists().where(Recording.call_id == Call.id)
    wanted = select(or_(stored, tasks.is_owed(TaskKind.FETCH_RECORDING))).where(Call.id == call_id)
    return bool(await session.scalar(wanted))


async def _wants_transcript(session: AsyncSession, call_id: str) -> bool:
    status = await session.scalar(select(Transcript.status).where(Transcript.call_id == call_id))
    return status in (TranscriptStatus.PENDING, TranscriptStatus.PROCESSING)


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
