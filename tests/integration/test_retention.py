"""What is deleted is gone everywhere, and what is not due stays."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Table, func, select, text, update

from app import accounts, callbacks, dids, recordings, retention, tasks
from app.errors import Conflict
from app.models import Base, Call, Delivery, Recording, Task, TaskKind, Transcript, User
from app.storage import FolderStorage
from app.telephony.base import CallStatus
from tests.integration.test_callbacks import end, new_call, save_transcript
from worker.context import Context
from worker.sweep import Sweep

URL = "http://127.0.0.1:1/"


async def finished(context: Context, user: User) -> str:
    """A call with a recording, a transcript and callbacks."""

    async def wav() -> AsyncIterator[bytes]:
        yield b"RIFF"

    call_id = await new_call(context, user, URL)
    await end(context, call_id, CallStatus.COMPLETED, recording=True)
    stored = await context.storage.put(recordings.storage_key(call_id, "audio/wav"), wav(), max_bytes=10)
    async with tasks.transaction(context.db, context.hints) as session:
        await recordings.save(session, call_id, stored, "audio/wav")
        for task in await session.scalars(select(Task).where(Task.call_id == call_id, Task.kind != "deliver")):
            await session.delete(task)
    await save_transcript(context, call_id)
    return call_id


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def age(context: Context, call_id: str, days: int) -> None:
    async with context.db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(ended_at=func.now() - timedelta(days=days)))


async def test_old_recordings_and_transcripts_are_deleted(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    old, young = await finished(own, user), await finished(own, user)
    await age(own, old, 31)
    await age(own, young, 29)
    assert len(files(tmp_path / "own")) == 2
    await retention.delete_old(own.db, own.storage, days=30)
    assert [path.stem for path in files(tmp_path / "own")] == [young]
    async with own.db.transaction() as session:
        made = {row.call_id: row for row in await session.scalars(select(Transcript))}
        assert (made[old].status, made[young].status) == ("failed", "ready")
        assert "30 days" in (made[old].failure or "")
        assert (made[old].summary, made[old].outcome, made[old].history) == (None, None, None)
        assert await session.get(Recording, old) is None
        assert await session.get(Recording, young) is not None
        assert list(await session.scalars(select(Delivery).filter_by(call_id=old))) == []
        assert await session.get(Call, old) is not None


async def test_the_sweep_of_a_calls_worker_does_it(context: Context, user: User, tmp_path: Path) -> None:
    from uuid import uuid4

    from app.models import Queue

    own = replace(
        context,
        storage=FolderStorage(tmp_path / "own"),
        settings=context.settings.model_copy(update={"retention_days": 1}),
    )
    old = await finished(own, user)
    await age(own, old, 2)
    sweep = Sweep(own, Queue.CALLS, uuid4())
    await sweep.once()
    await sweep.leave()
    assert files(tmp_path / "own") == []


async def test_a_user_is_erased_with_nothing_left(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    calls = [await finished(own, user) for _ in range(2)]
    async with own.db.transaction() as session:
        did = await dids.add(session, "917099999999", owner=user, max_channels=1)
        did.inbound_callback_url = "https://crm.example.com/"
        await accounts.create_api_key(session, user)
    assert await retention.erase_user(own.db, own.storage, user) == 2
    assert files(tmp_path / "own") == []
    async with own.db.transaction() as session:
        for table in Base.metadata.tables.values():
            assert isinstance(table, Table)
            for row in await session.execute(select(text("*")).select_from(table)):
                seen = str(row)
                assert user.id not in seen, table.name
                assert user.email not in seen, table.name
                assert not any(call_id in seen for call_id in calls), table.name
        assert (
            await session.scalar(
                select(func.count())
                .where(text("inbound_callback_url = 'https://crm.example.com/'"))
                .select_from(text("dids"))
            )
            == 0
        )


async def test_what_comes_in_while_a_user_is_erased_is_not_left_behind(
    context: Context, user: User, tmp_path: Path
) -> None:
    """Such as a late report with a recording: either it is erased too, or the erasing waits for it and says so."""
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    call_id = await finished(own, user)
    async with own.db.transaction() as session:
        await callbacks.lock(session, call_id)
        erasing = asyncio.create_task(retention.erase_user(own.db, own.storage, user))
        while not await _is_waiting(own):
            await asyncio.sleep(0.01)
        await tasks.add(session, TaskKind.FETCH_RECORDING, call_id)
    with pytest.raises(Conflict, match=call_id):
        await erasing
    assert len(files(tmp_path / "own")) == 1


async def _is_waiting(context: Context) -> bool:
    """Whether somebody waits for a lock on a call."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM calls%'"
    async with context.db.statement() as connection:
        return bool((await connection.execute(text(waiting))).scalar_one())


async def test_a_user_with_a_live_call_is_shut_out_but_not_erased(context: Context, user: User) -> None:
    call_id = await new_call(context, user, URL)
    with pytest.raises(Conflict, match=call_id):
        await retention.erase_user(context.db, context.storage, user)
    async with context.db.transaction() as session:
        mine = await session.get_one(User, user.id)
        assert not mine.is_active
