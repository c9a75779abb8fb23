"""How loud each side of a recording is over its time, to draw it. Made once, at the first look."""

import asyncio
import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing
from sqlalchemy import select, update

from app.db import Database
from app.errors import NoSuchRecording
from app.models import RecordingRow
from app.storage import Storage, StorageError
from app.transcription.audio import load
from app.transcription.base import Audio, Role, Samples, TranscriptionError

STEPS = 1200
"""Into how many equal parts a recording is cut."""

_QUIETEST_TOP = 600.0
"""A recording that is never louder than this (full scale is 32,768) is drawn as what it is: nearly silent."""
_HEADER = struct.Struct("<fB")
_ROLES: tuple[Role, ...] = ("agent", "customer", "unknown")
_one_at_a_time = asyncio.Semaphore(1)


@dataclass(frozen=True, slots=True)
class Waveform:
    """`sides` has `STEPS` levels from 0 to 255 for each side, `roles` who speaks on it, and `channels` which channel of
    the recording it is, from 0."""

    seconds: float
    roles: list[str]
    channels: list[int]
    sides: list[list[int]]


async def read(db: Database, storage: Storage, call_id: str) -> Waveform:
    """The waveform of the call's recording. Raises `NoSuchRecording`."""
    async with db.statement() as connection:
        query = select(RecordingRow.__table__).where(RecordingRow.call_id == call_id)
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NoSuchRecording
    if row.peaks is not None:
        return _unpacked(row.peaks, row.agent_channel)
    try:
        async with _one_at_a_time, storage.local_copy(row.storage_key) as path:
            audio = await load(path, row.content_type, row.storage_key, agent_channel=row.agent_channel)
            packed = await asyncio.to_thread(_packed, audio)
    except (StorageError, TranscriptionError) as error:
        raise NoSuchRecording("The recording cannot be drawn") from error
    async with db.statement() as connection:
        unchanged = (RecordingRow.call_id == call_id, RecordingRow.sha256 == row.sha256)
        await connection.execute(update(RecordingRow).where(*unchanged).values(peaks=packed))
    return _unpacked(packed, row.agent_channel)


def _packed(audio: Audio) -> bytes:
    levels = [_levels(samples) for samples in audio.channels]
    top = max(_QUIETEST_TOP, *(float(side.max(initial=0.0)) for side in levels))  # one scale for both sides
    sides = [np.clip(np.round(side / top * 255), 0, 255).astype(np.uint8).tobytes() for side in levels]
    roles = bytes(_ROLES.index(role) for role in audio.roles[: len(sides)])
    return _HEADER.pack(audio.duration, len(sides)) + roles + b"".join(sides)


def _levels(samples: Samples) -> "np.typing.NDArray[np.float64]":
    """The level of each part: its 99th percentile, so that a click does not flatten the talk."""
    edges = np.linspace(0, len(samples), STEPS + 1).astype(int)
    loud = np.abs(samples.astype(np.int32))
    return np.array([np.percentile(loud[a:b], 99) if b > a else 0.0 for a, b in pairwise(edges)])


def _unpacked(packed: bytes, agent_channel: int) -> Waveform:
    seconds, count = _HEADER.unpack_from(packed)
    roles, body = packed[_HEADER.size :][:count], packed[_HEADER.size + count :]
    sides = [list(body[side * STEPS : (side + 1) * STEPS]) for side in range(count)]
    agent = agent_channel - 1
    return Waveform(round(seconds, 2), [_ROLES[role] for role in roles], [agent, 1 - agent][:count], sides)
