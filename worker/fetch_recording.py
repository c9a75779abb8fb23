"""Fetch a call's recording from its provider, or from the URL that a report named. Store it, and add its transcription.

Afterwards the provider can delete its copy, which the `hangup` task asks it to do.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from app import call_lookups, metrics, recordings, tasks
from app.db import after_commit
from app.engine_models import TaskKind
from app.outbound import OutboundError, host_of
from app.storage import StorageError, Stored, TooLarge
from app.tasks import ClaimedTask, LeaseLost
from app.telephony.base import RecordingUnavailable
from worker.context import Context
from worker.telemetry import asked

log = structlog.get_logger()

LONGEST_SECONDS = 75 * 60.0
"""After this, no other attempt starts. The pauses of the schedule take an hour, and slow responses add to it."""

_LONGEST_IN_LINE_SECONDS = 24 * 3600.0
"""How long a recording waits in line for a host that responds, but is asked for many recordings at once."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A recording that is stored now."""

    stored: Stored
    content_type: str
    agent_channel: int = 1


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        url = await call_lookups.find_recording_url(session, task.call_id)
    try:
        if url is not None and await _is_postponed(context, task, host_of(url)):
            return
        if url is None:
            fetched = await _from_provider(context, task)
        else:
            fetched = await _from_url(context, task.call_id, url)
    except OutboundError as error:
        error.args = (f"The recording could not be fetched: {error}",)  # the client reads this text
        raise
    except (RecordingUnavailable, TooLarge) as error:
        await give_up(context, task, f"There is no usable recording: {error}")
        return
    try:
        async with context.db.transaction() as session:
            await tasks.finish(session, task)
            await recordings.save(
                session, task.call_id, fetched.stored, fetched.content_type, agent_channel=fetched.agent_channel
            )
            await tasks.add(session, TaskKind.HANGUP, task.call_id)
    except LeaseLost:
        await _delete_if_unwanted(context, task.call_id, fetched.stored)
        raise
    metrics.recording("stored")
    log.info("recording_stored", call_id=task.call_id, bytes=fetched.stored.size_bytes)


async def give_up(context: Context, task: ClaimedTask, reason: str) -> None:
    """End the task without a recording. Nothing of it stays, here or at the provider."""
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        await tasks.add(session, TaskKind.HANGUP, task.call_id)
        if await recordings.give_up(session, task.call_id, reason):
            after_commit(session, metrics.recording, "unavailable")
            try:
                await context.storage.delete(recordings.storage_keys(task.call_id))
            except StorageError as error:  # perhaps the reason why it is given up
                log.error("not_deleted", call_id=task.call_id, error=str(error))


async def _is_postponed(context: Context, task: ClaimedTask, host: str) -> bool:
    """Whether the task was postponed because the host has no capacity. This is not an attempt, so it needs its
    own end."""
    hosts = context.recording_hosts
    wait = hosts.wait(host)
    if not wait:
        return False
    silent = hosts.unresponsive_seconds(host) > 0
    if task.age_seconds > (LONGEST_SECONDS if silent else _LONGEST_IN_LINE_SECONDS):
        said = "does not respond" if silent else "was busy all the time"
        await give_up(context, task, f"There is no usable recording: {host} {said}")
        return True
    async with context.db.transaction() as session:
        await tasks.postpone(session, task, delay=wait)
    return True


async def _from_provider(context: Context, task: ClaimedTask) -> _Fetched:
    async with context.db.transaction() as session:
        ref = await call_lookups.get_ref(session, task.call_id)
        talk = await call_lookups.find_talk(session, task.call_id)
    async with context.providers.use(task.provider) as provider:
        recording = await asked(task.provider, "open_recording", provider.open_recording(ref, talk))
        stored = await _store(context, task.call_id, recording.content_type, recording.chunks)
        return _Fetched(stored, recording.content_type, recording.agent_channel)


async def _from_url(context: Context, call_id: str, url: str) -> _Fetched:
    found = context.outbound.download(url, max_bytes=recordings.MAX_BYTES)
    async with context.recording_hosts.request(host_of(url)), found as download:
        # A redirect may lead from a name with a known file ending to one without, or the other way round.
        types = [recordings.audio_type(download.content_type, place) for place in (download.url, url)]
        content_type = next((known for known in types if known != recordings.UNKNOWN_TYPE), recordings.UNKNOWN_TYPE)
        return _Fetched(await _store(context, call_id, content_type, download.chunks), content_type)


async def _store(context: Context, call_id: str, content_type: str, chunks: AsyncIterator[bytes]) -> Stored:
    key = recordings.storage_key(call_id, content_type)
    return await context.storage.put(key, chunks, max_bytes=recordings.MAX_BYTES)


async def _delete_if_unwanted(context: Context, call_id: str, stored: Stored) -> None:
    """Delete what this worker stored after it had lost its lease, unless the call still has or wants a recording."""
    async with context.db.transaction() as session:
        await tasks.lock_call(session, call_id)
        if not await recordings.is_wanted(session, call_id):
            await context.storage.delete([stored.key])
