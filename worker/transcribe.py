"""Turn a stored recording into a transcript."""

from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app import metrics, outcome_sets, recordings, tasks, tracing, transcripts, vocabulary
from app.call_lookups import find_language
from app.calls import add_note
from app.tasks import ClaimedTask
from app.transcription.base import TranscriptionError
from app.transcription.pipeline import transcribe
from worker.context import Context

log = structlog.get_logger()


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        recording = await recordings.find(session, task.call_id)
        language = await find_language(session, task.call_id) or context.settings.default_language
        terms = await vocabulary.list_terms_of_call(session, task.call_id)
        wanted = await outcome_sets.get_for_call(session, task.call_id)
        if recording is None:
            await tasks.finish(session, task)
            await transcripts.fail(session, task.call_id, "The recording was deleted")
            return
        if not await transcripts.start(session, task.call_id):  # it is ready, failed or disabled already
            await tasks.finish(session, task)
            return
    try:
        async with context.storage.local_copy(recording.storage_key) as path:
            began = monotonic()
            with tracing.step("recognition", **{"ringback.recognizer": context.recognizer.name}):
                made = await transcribe(
                    path,
                    recognizer=context.recognizer,
                    summarizer=context.summarizer,
                    language=language,
                    vocabulary=tuple(terms),
                    wanted=wanted,
                    content_type=recording.content_type,
                    name=recording.storage_key,
                    agent_channel=recording.agent_channel,
                )
            metrics.transcribed(made.duration, monotonic() - began)
    except TranscriptionError as error:
        if error.retryable:
            raise
        async with context.db.transaction() as session:
            await tasks.finish(session, task)
            await transcripts.fail(session, task.call_id, error.reason)
            await _note(session, task.call_id, error.notes)
        metrics.transcript_failed()
        log.warning("transcript_failed", call_id=task.call_id, reason=error.reason)
        return
    engine = f"{context.recognizer.name}, {context.summarizer.name}"
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        await transcripts.save(session, task.call_id, made, engine=engine)
        await _note(session, task.call_id, made.notes)
    log.info("transcript_ready", call_id=task.call_id, turns=len(made.turns), outcome=made.digest.outcome)


async def _note(session: AsyncSession, call_id: str, notes: tuple[str, ...]) -> None:
    """Add these notes to the call's history. The caller holds the call's lock."""
    for note in notes:
        await add_note(session, call_id, note)
