"""The table of tasks is cleaned while much goes through it."""

import asyncio

from sqlalchemy import text

from app.models import User
from tests.integration.callback_calls import new_call
from worker import vacuum_loop
from worker.context import Context

_COME_AND_GO = text("""
INSERT INTO tasks (kind, queue, call_id) SELECT 'hangup', 'calls', :call_id FROM generate_series(1, 3000)
""")
_DEAD = text("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tasks'")


async def test_dead_rows_of_tasks_are_removed(context: Context, user: User) -> None:
    call_id = await new_call(context, user, "http://127.0.0.1:1/")
    async with context.db.transaction() as session:
        await session.execute(_COME_AND_GO, {"call_id": call_id})
        await session.execute(text("DELETE FROM tasks WHERE call_id = :call_id"), {"call_id": call_id})
        await session.execute(text("SELECT pg_stat_force_next_flush()"))
    async with asyncio.timeout(60):
        while not await vacuum_loop.once(context.db):  # PostgreSQL counts dead rows a moment later
            await asyncio.sleep(0.1)
    async with context.db.statement() as connection:
        assert (await connection.scalar(_DEAD) or 0) < 3000
    assert not await vacuum_loop.once(context.db)
