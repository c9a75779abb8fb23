"""Fetch a call's recording from its provider, store it, and owe its transcript. The provider need not keep its copy
then, which the clearing up after every call tells it (`worker.hangup`)."""

from collections.abc import AsyncIterator

import structlog

from app import calls, recordings, tasks
from app.models import Call, TaskKind
from app.storage import Stored, TooLarge
from app.tasks import ClaimedTask
from app.telephony.base import RecordingUnavailable
from worker.context import Context

log = structlog.get_logger()


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        ref = await calls.get_ref(session, task.call_id)
        talk = await calls.get_talk(session, task.call_id)
        url = await calls.get_recording_url(session, task.call_id)
    try:
        if url is None:
            recording = await context.provider.open_recording(ref, talk)
            content_type = recording.content_type
            stored = await _store(context, task.call_id, content_type, recording.chunks)
        else:
            async with context.outbound.download(url) as download:
                content_type = recordings.audio_type(download.content_type, url)
                stored = await _store(context, task.call_id, content_type, download.chunks)
    except (RecordingUnavailable, TooLarge) as error:
        async with tasks.transaction(context.db, context.hints) as session:
            await tasks.finish(session, task)
            await recordings.give_up(session, task.call_id, f"There is no usable recording: {error}")
            await tasks.add(session, TaskKind.HANGUP, task.call_id)
        return
    async with context.db.transaction() as session:
        if await session.get(Call, task.call_id) is None:  # its user was erased meanwhile
            await context.storage.delete(stored.key)
            return
    async with tasks.transaction(context.db, context.hints) as session:
        await tasks.finish(session, task)
        await recordings.save(session, task.call_id, stored, content_type)
        await tasks.add(session, TaskKind.HANGUP, task.call_id)
    log.info("recording_stored", call_id=task.call_id, bytes=stored.size_bytes)


async def _store(context: Context, call_id: str, content_type: str, chunks: AsyncIterator[bytes]) -> Stored:
    key = recordings.storage_key(call_id, content_type)
    return await context.storage.put(key, chunks, max_bytes=recordings.MAX_BYTES)
