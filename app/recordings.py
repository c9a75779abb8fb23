"""A call's recording: stored once, then transcribed."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, tasks, transcripts
from app.models import Call, RecordingRow, TaskKind, TranscriptRow, TranscriptStatus
from app.storage import Stored

MAX_BYTES = 512 * 1024 * 1024
"""A recording above this is refused: nine hours of two-channel telephone audio."""

_ENDINGS = {
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/vnd.wave": ".wav",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/ogg": ".ogg",
    "application/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/flac": ".flac",
    "audio/x-flac": ".flac",
    "audio/mp4": ".m4a",
    "audio/m4a": ".m4a",
    "audio/x-m4a": ".m4a",
    "video/mp4": ".mp4",
    "audio/aac": ".aac",
    "audio/webm": ".webm",
    "video/webm": ".webm",
    "audio/x-matroska": ".mka",
    "video/x-matroska": ".mka",
    "audio/amr": ".amr",
    "audio/amr-wb": ".amr",
    "audio/3gpp": ".3gp",
    "audio/aiff": ".aiff",
    "audio/x-aiff": ".aiff",
    "audio/x-ms-wma": ".wma",
    "audio/gsm": ".gsm",
    "audio/x-gsm": ".gsm",
    "audio/basic": ".ulaw",
    "audio/pcmu": ".ulaw",
    "audio/x-mulaw": ".ulaw",
    "audio/mulaw": ".ulaw",
    "audio/x-ulaw": ".ulaw",
    "audio/ulaw": ".ulaw",
    "audio/pcma": ".alaw",
    "audio/x-alaw": ".alaw",
    "audio/alaw": ".alaw",
    "audio/l16": ".l16",
    "audio/x-sln": ".sln",
    "audio/g722": ".g722",
}
"""What is stored of each type of audio, by the name that a download of it gets."""
_TYPES = {
    ".wav": "audio/wav",
    ".wave": "audio/wav",
    ".wav49": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/opus",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".aac": "audio/aac",
    ".webm": "audio/webm",
    ".mka": "audio/x-matroska",
    ".mkv": "video/x-matroska",
    ".amr": "audio/amr",
    ".awb": "audio/amr-wb",
    ".3gp": "audio/3gpp",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".wma": "audio/x-ms-wma",
    ".au": "audio/basic",
    ".snd": "audio/basic",
}
_RAW_TYPES = {
    ".gsm": "audio/gsm",
    ".ul": "audio/pcmu",
    ".ulaw": "audio/pcmu",
    ".mulaw": "audio/pcmu",
    ".mu": "audio/pcmu",
    ".pcmu": "audio/pcmu",
    ".al": "audio/pcma",
    ".alaw": "audio/pcma",
    ".pcma": "audio/pcma",
    ".sln": "audio/x-sln",
    ".slin": "audio/x-sln",
    ".sln8": "audio/x-sln",
    ".sln16": "audio/x-sln;rate=16000",
    ".raw": "audio/x-sln",
    ".g722": "audio/g722",
}
"""Files without a header: only the name, or the type, says how they are to be read."""
UNKNOWN_TYPE = "application/octet-stream"
_PARAMETER = re.compile(r";\s*(rate|channels)\s*=\s*\"?(\d{1,6})\b", re.IGNORECASE)


def audio_type(said: str, url: str) -> str:
    """The content type of a recording that a server handed out, with its parameters `rate` and `channels`.

    `said`: the server's Content-Type. The name in the URL decides where it names a format without a header, because
    such files are handed out under any type, and where the server says nothing that is known. The answer is audio or
    `application/octet-stream`, never a page, whatever somebody names as a recording.
    """
    kind = said.partition(";")[0].strip().lower()
    ending = _ending(url)
    raw = kind in _ENDINGS and _ENDINGS[kind] in (*_RAW_TYPES, ".l16")
    if ending in _RAW_TYPES and not (raw and ending == ".raw"):
        named = _RAW_TYPES[ending]
        return named if ";" in named else named + _parameters(said if kind in _ENDINGS else "")
    if kind in _ENDINGS:
        return kind + _parameters(said)
    return _TYPES.get(ending, UNKNOWN_TYPE)


def _parameters(said: str) -> str:
    return "".join(f";{name.lower()}={value}" for name, value in _PARAMETER.findall(said))


def _ending(url: str) -> str:
    """Of the file that the URL names, in its path or in its query."""
    parts = urlsplit(url)
    ending = PurePosixPath(unquote(parts.path)).suffix.lower()
    if ending in _TYPES or ending in _RAW_TYPES:
        return ending
    named = (PurePosixPath(value).suffix.lower() for _, value in parse_qsl(parts.query))
    return next((found for found in named if found in _TYPES or found in _RAW_TYPES), ending)


def storage_key(call_id: str, content_type: str) -> str:
    """Where this call's recording goes: spread over folders, so that none holds a million files."""
    return _place(call_id) + _ENDINGS.get(content_type.partition(";")[0], "")


def storage_keys(call_id: str) -> list[str]:
    """Wherever this call's recording may have gone."""
    return [_place(call_id) + ending for ending in ("", *sorted(set(_ENDINGS.values())))]


def _place(call_id: str) -> str:
    return f"recordings/{call_id[-2:]}/{call_id}"


async def expect(session: AsyncSession, call_id: str) -> None:
    """There is a recording of the call: it is owed from now on, and then its transcript. One that is stored stays. With
    the call's lock."""
    if await find(session, call_id) is None:
        await tasks.replace(session, TaskKind.FETCH_RECORDING, call_id)
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
        insert(RecordingRow)
        .values(call_id=call_id, **values)
        .on_conflict_do_update(index_elements=["call_id"], set_=values)
    )
    await callbacks.notify_recording(session, call_id)
    if await _wants_transcript(session, call_id):
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def give_up(session: AsyncSession, call_id: str, reason: str) -> bool:
    """There will be no recording, and so no transcript. False: it is stored all the same. With the call's lock."""
    if await find(session, call_id) is not None:
        return False
    await callbacks.notify_recording(session, call_id)
    await transcripts.fail(session, call_id, reason)
    return True


async def is_wanted(session: AsyncSession, call_id: str) -> bool:
    """Whether the call has, or is still to get, a recording."""
    stored = exists().where(RecordingRow.call_id == Call.id)
    wanted = select(or_(stored, tasks.is_pending(TaskKind.FETCH_RECORDING))).where(Call.id == call_id)
    return bool(await session.scalar(wanted))


async def _wants_transcript(session: AsyncSession, call_id: str) -> bool:
    status = await session.scalar(select(TranscriptRow.status).where(TranscriptRow.call_id == call_id))
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
        select(
            Call.user_id,
            RecordingRow.storage_key,
            RecordingRow.content_type,
            RecordingRow.size_bytes,
            RecordingRow.sha256,
        )
        .join(Call, Call.id == RecordingRow.call_id)
        .where(RecordingRow.call_id == call_id)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else StoredRecording(*row)


async def find(session: AsyncSession, call_id: str) -> RecordingRow | None:
    return (await session.scalars(select(RecordingRow).where(RecordingRow.call_id == call_id))).one_or_none()
