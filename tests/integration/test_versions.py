"""Two versions of Ringback on one database, as during an upgrade."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import bindparam, insert, select, text

from app import health, schema, tasks
from app.cli.migrate import alembic_config
from app.db import Compiled, Database
from app.engine_models import Queue, Task
from app.models import Call, User
from app.settings import Settings
from tests.integration.command import Ringback
from tests.integration.isolated_worker import IsolatedWorker

HEAD = schema.REVISIONS[-1]
OLDER, NEWER = "0001", "9999"


async def execute(db: Database, *statements: str) -> None:
    async with db.statement() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def set_revision(db: Database, revision: str) -> None:
    await execute(db, f"UPDATE alembic_version SET version_num = '{revision}'")


@pytest.fixture
async def own_db(isolated: IsolatedWorker) -> AsyncIterator[Database]:
    """A database whose tables may be changed."""
    yield isolated.context.db
    await set_revision(isolated.context.db, HEAD)


def test_the_needed_migration_is_the_last_one() -> None:
    assert ScriptDirectory.from_config(alembic_config("postgresql+asyncpg://")).get_current_head() == HEAD


async def test_whoever_is_started_before_the_migration_waits_for_it(isolated: IsolatedWorker, own_db: Database) -> None:
    await set_revision(own_db, OLDER)
    (missing,) = await health.missing_parts(own_db, isolated.redis)
    assert missing.problem == f"the tables are of migration 0001, and {HEAD} is needed: run `ringback migrate`"
    waiting = asyncio.create_task(schema.wait_until_usable(own_db, and_reachable=True))
    await asyncio.wait([waiting], timeout=0.5)
    assert not waiting.done()
    await set_revision(own_db, HEAD)
    await waiting


async def test_an_empty_database_is_waited_for_as_well(own_db: Database) -> None:
    await execute(own_db, "ALTER TABLE alembic_version RENAME TO hidden")
    async with own_db.statement() as connection:
        assert "no tables" in str(await schema.find_problem(connection))
    await execute(own_db, "ALTER TABLE hidden RENAME TO alembic_version")


async def test_the_version_before_runs_on_newer_tables_and_its_migrate_changes_nothing(
    isolated_settings: Settings, own_db: Database, ringback: Ringback
) -> None:
    await set_revision(own_db, NEWER)
    await schema.wait_until_usable(own_db, and_reachable=True)
    done = await asyncio.to_thread(ringback, "migrate", RINGBACK_DATABASE_URL=isolated_settings.database_url)
    assert "Nothing was changed" in done.check()


async def test_a_task_of_a_kind_that_only_a_newer_version_knows_is_left_alone(
    isolated: IsolatedWorker, own_db: Database
) -> None:
    await execute(own_db, "ALTER TABLE tasks DROP CONSTRAINT ck_tasks_kind")
    ids = await isolated.place(3)
    async with own_db.transaction() as session:
        values = {
            "kind": "teleport",
            "queue": "calls",
            "call_id": min(ids),
            "due_at": text("now() - interval '1 hour'"),
        }
        unknown = (await session.execute(insert(Task).values(values).returning(Task.id))).scalar_one()
    assert await tasks.claim(own_db, unknown, lease_seconds=30) is None
    async with isolated.working(sweep_seconds=0.01, call_concurrency=2):
        await isolated.ended(ids)
        await isolated.ended(await isolated.place(2))
    async with own_db.transaction() as session:
        task = await session.get_one(Task, unknown)
        assert (task.attempts, task.lease_until) == (0, None)
        await session.delete(task)
    await execute(own_db, f"ALTER TABLE tasks ADD CONSTRAINT ck_tasks_kind CHECK ({_kinds()})")


def _kinds() -> str:
    return "kind IN (" + ", ".join(f"'{kind}'" for kind in tasks.QUEUE_OF) + ")"


def test_no_two_kinds_share_a_lane() -> None:
    assert len(set(tasks.LANE_OF.values())) == len(tasks.LANE_OF)


async def test_no_request_notices_that_a_column_was_added(isolated: IsolatedWorker, own_db: Database) -> None:
    """Prepared statements of open connections stay valid, because they name their columns."""
    ids = await isolated.place(1)
    (first,) = ids
    poll = Compiled(select(Call.id, Call.status).where(Call.id == bindparam("call_id")))
    columns = await own_db.fetch_one(poll, {"call_id": first})
    for number in range(3):
        await execute(own_db, f"ALTER TABLE calls ADD COLUMN later_{number} text DEFAULT 'new' NOT NULL")
        assert await own_db.fetch_one(poll, {"call_id": first}) == columns
        async with own_db.transaction() as session:
            assert await session.get(Call, first) is not None
            assert await session.scalar(select(User.id).where(User.id == isolated.user.id)) is not None
        ids |= await isolated.place(1)
    await execute(own_db, *(f"ALTER TABLE calls DROP COLUMN later_{number}" for number in range(3)))
    async with isolated.working(Queue.CALLS, sweep_seconds=0.05):
        await isolated.ended(ids)
