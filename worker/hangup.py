"""End a call at its provider, or clear up after one that has ended: nothing of it is to stay behind there.

Done after every dialled call, again once its recording is stored, and until the provider has said yes; so nobody is
left alone on a line, whoever of ours died meanwhile.
"""

from app import call_lookups, tasks
from app.models import TaskKind
from app.tasks import ClaimedTask
from worker.context import Context


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        call = await call_lookups.get_hangup_state(session, task.call_id)
    if context.provider.capabilities.hangup:
        await context.provider.hangup(call.ref)
        if call.ended and not call.fetch_pending:
            await context.provider.discard_recording(call.ref)
    # A request whose answer nobody saw may still be on its way, and make what nobody wants.
    grace = context.settings.dial_grace_seconds
    once_more = call.unconfirmed_seconds is not None and call.unconfirmed_seconds < grace
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        if once_more:
            await tasks.add(session, TaskKind.HANGUP, task.call_id, delay=grace)
