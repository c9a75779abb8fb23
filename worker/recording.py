"""Fetch a call's recording from its provider, or from where a report says that it is, store it, and owe its transcript.
The provider need not keep its copy then, which the clearing up after every call tells it (`worker.hangup`)."""

from collections.abc import AsyncIterator

import structlog

from app import calls, recordings, tasks
from app.models import TaskKind
from app.outbound import host_of
from app.storage import StorageError, Stored, TooLarge
from app.tasks import ClaimedTask, LeaseLost
from app.telephony.base import RecordingUnavailable
from worker.context import Context

log = structlog.get_logger()


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        url = await calls.get_recording_url(session, task.call_id)
    wait = 0.0 if url is None else context.recording_hosts.wait(host_of(url))
    if wait:
        async with tasks.transaction(context.db, context.hints) as session:
            await tasks.postpone(session, task, delay=wait)
        return
    try:
        if url is None:
            stored, content_type = await _from_provider(context, task.call_id)
        else:
            stored, content_type = await _from_url(context, task.call_id, url)
    except (RecordingUnavailable, TooLarge) as error:
        await give_up(context, task, f"There is no usable recording: {error}")
        return
    try:
        async with tasks.transaction(context.db, context.hints) as session:
            await tasks.finish(session, task)
            await recordings.save(session, task.call_id, stored, content_type)
            await tasks.add(session, TaskKind.HANGUP, task.call_id)
    except LeaseLost:
        await _delete_if_nobodys(context, task.call_id, stored)
        raise
    log.info("recording_stored", call_id=task.call_id, bytes=stored.size_bytes)


async def give_up(context: Context, task: ClaimedTask, reason: str) -> None:
    """There will be no recording; nothing of it stays behind, here or at the provider."""
    async with tasks.transaction(context.db, context.hints) as session:
        await tasks.finish(session, task)
        await tasks.add(session, TaskKind.HANGUP, task.call_id)
        if await recordings.give_up(session, task.call_id, reason):
            try:
                await context.storage.delete(recordings.storage_keys(task.call_id))
            except StorageError as error:  # which may be why it is given up
                log.error("not_deleted", call_id=task.call_id, error=str(error))


async def _from_provider(context: Context, call_id: str) -> tuple[Stored, str]:
    async with context.db.transaction() as session:
        ref = await calls.get_ref(session, call_id)
        talk = await calls.get_talk(session, call_id)
    recording = await context.provider.open_recording(ref, talk)
    return await _store(context, call_id, recording.content_type, recording.chunks), recording.content_type


async def _from_url(context: Context, call_id: str, url: str) -> tuple[Stored, str]:
    async with context.recording_hosts.request(host_of(url)), context.outbound.download(url) as download:
        content_type = recordings.audio_type(download.content_type, url)
        return await _store(context, call_id, content_type, download.chunks), content_type


async def _store(context: Context, call_id: str, content_type: str, chunks: AsyncIterator[bytes]) -> Stored:
    key = recordings.storage_key(call_id, content_type)
    return await context.storage.put(key, chunks, max_bytes=recordings.MAX_BYTES)


async def _delete_if_nobodys(context: Context, call_id: str, stored: Stored) -> None:
    """We were frozen, and meanwhile another worker did this. If its work was deleted since, with its user or by
    retention, ours must not stay behind."""
    async with context.db.transaction() as session:
        await tasks.lock_call(session, call_id)
        if not await recordings.is_wanted(session, call_id):
            await context.storage.delete([stored.key])
