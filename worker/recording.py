"""Fetch a call's recording from its provider, store it, and owe its transcript."""

import structlog

from app import recordings, tasks, transcripts
from app.calls import get_ref
from app.storage import TooLarge
from app.tasks import ClaimedTask
from app.telephony.base import RecordingUnavailable
from worker.context import Context

log = structlog.get_logger()


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        ref = await get_ref(session, task.call_id)
    try:
        recording = await context.provider.open_recording(ref)
        stored = await context.storage.put(
            recordings.storage_key(task.call_id, recording.content_type),
            recording.chunks,
            max_bytes=recordings.MAX_BYTES,
        )
    except (RecordingUnavailable, TooLarge) as error:
        async with tasks.transaction(context.db, context.hints) as session:
            await tasks.finish(session, task)
            await transcripts.fail(session, task.call_id, f"There is no usable recording: {error}")
        return
    async with tasks.transaction(context.db, context.hints) as session:
        await tasks.finish(session, task)
        await recordings.save(session, task.call_id, stored, recording.content_type)
    log.info("recording_stored", call_id=task.call_id, bytes=stored.size_bytes)
