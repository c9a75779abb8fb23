"""End a call at its provider, and delete what the provider still holds of it.

This task runs after every dialed call, and again once its recording is stored, until the provider confirms. So nobody
stays alone on a line, even if the worker that dialed has died.
"""

from app import call_lookups, tasks
from app.engine_models import TaskKind
from app.tasks import ClaimedTask
from worker.context import Context
from worker.telemetry import asked


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        call = await call_lookups.get_hangup_state(session, task.call_id)
    async with context.providers.use(task.provider) as provider:
        can = provider.capabilities
        if can.hangup or can.cancel:
            await asked(task.provider, "hangup", provider.hangup(call.ref))
        if can.discard_recording and call.ended and not call.fetch_pending:
            await asked(task.provider, "discard_recording", provider.discard_recording(call.ref))
    # A request without an answer may still arrive, and create a channel after the call has ended.
    grace = context.settings.dial_grace_seconds
    once_more = call.unconfirmed_seconds is not None and call.unconfirmed_seconds < grace
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        if once_more:
            await tasks.add(session, TaskKind.HANGUP, task.call_id, delay=grace)
