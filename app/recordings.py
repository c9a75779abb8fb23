"""A call's recording: stored once, then transcribed. `app.security.RecordingLinks` decides who may read it."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, changes, tasks, transcripts
from app.engine_models import TaskKind
from app.models import Call, RecordingRow, TranscriptRow, TranscriptStatus
from app.storage import Stored

MAX_BYTES = 512 * 1024 * 1024
"""A larger recording is refused. This is nine hours of two-channel telephone audio."""

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
"""The file ending of each type of audio."""
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
"""Files without a header. Only the name or the type says how to read them."""
UNKNOWN_TYPE = "application/octet-stream"
_PARAMETER = re.compile(r";\s*(rate|channels)\s*=\s*\"?(\d{1,6})\b", re.IGNORECASE)


def audio_type(said: str, url: str) -> str:
    """The content type of a downloaded recording, with its parameters `rate` and `channels`.

    `said` is the server's Content-Type. The name in the URL counts if it names a format without a header, because
    servers send such files as any type. It also counts if the Content-Type is unknown. The result is audio or
    `application/octet-stream`, so a browser never shows a recording as a page.
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
    """The file ending in the URL's path or query."""
    parts = urlsplit(url)
    ending = PurePosixPath(unquote(parts.path)).suffix.lower()
    if ending in _TYPES or ending in _RAW_TYPES:
        return ending
    named = (PurePosixPath(value).suffix.lower() for _, value in parse_qsl(parts.query))
    return next((found for found in named if found in _TYPES or found in _RAW_TYPES), ending)


def storage_key(call_id: str, content_type: str) -> str:
    """The key of this call's recording. Keys are spread over folders, so that none holds a million files."""
    return _place(call_id) + _ENDINGS.get(content_type.partition(";")[0], "")


def storage_keys(call_id: str) -> list[str]:
    """Every key that this call's recording may have."""
    return [_place(call_id) + ending for ending in ("", *sorted(set(_ENDINGS.values())))]


def _place(call_id: str) -> str:
    return f"recordings/{call_id[-2:]}/{call_id}"


async def expect(session: AsyncSession, call_id: str) -> None:
    """Fetch the recording of the call, and then transcribe it. A stored recording stays. The caller holds the call's
    lock."""
    if await find(session, call_id) is None:
        await tasks.replace(session, TaskKind.FETCH_RECORDING, call_id)
    elif await _wants_transcript(session, call_id):
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def save(
    session: AsyncSession, call_id: str, stored: Stored, content_type: str, *, agent_channel: int = 1
) -> None:
    """Save that the recording is stored, and transcribe it if a transcript was ordered. `agent_channel`: which of its
    channels is the agent, 1 or 2. The caller holds the call's lock."""
    values = {
        "storage_key": stored.key,
        "content_type": content_type,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "agent_channel": agent_channel,
    }
    await session.execute(
        insert(RecordingRow)
        .values(call_id=call_id, **values)
        .on_conflict_do_update(index_elements=["call_id"], set_=values)
    )
    changes.note(session, call_id)
    await callbacks.notify_recording(session, call_id)
    if await _wants_transcript(session, call_id):
        await tasks.add(session, TaskKind.TRANSCRIBE, call_id)


async def give_up(session: AsyncSession, call_id: str, reason: str) -> bool:
    """There will be no recording, and so no transcript. False: a recording is stored after all. The caller holds the
    call's lock."""
    if await find(session, call_id) is not None:
        return False
    await callbacks.notify_recording(session, call_id)
    await transcripts.fail(session, call_id, reason)
    return True


async def is_wanted(session: AsyncSession, call_id: str) -> bool:
    """Whether the call has a recording, or a pending fetch of one."""
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
        """The name that a browser saves it as."""
        return self.storage_key.rpartition("/")[2]


async def find_for_download(session: AsyncSession, call_id: str) -> StoredRecording | None:
    """The call's recording, with its owner."""
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
