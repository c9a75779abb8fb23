"""What is deleted is gone everywhere, and what is not due stays."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Table, delete, func, insert, select, text, update

from app import accounts, dids, recordings, reports, retention, tasks
from app.engine_models import Task, TaskKind
from app.errors import Conflict, ValidationFailed
from app.models import Base, Call, Delivery, RecordingRow, TranscriptRow, User
from app.numbers import PhoneNumber
from app.reports import CallLogReport
from app.rule_models import TalkUsage
from app.storage import FolderStorage, StorageError
from app.telephony.base import CallStatus
from tests.conftest import CUSTOMER, new_user
from tests.integration.call_runner import is_waiting_for_a_lock
from tests.integration.callback_calls import end, new_call, save_transcript
from worker import retention_loop
from worker.context import Context

URL = "http://127.0.0.1:1/"
LONG_AGO = datetime(2024, 2, 29, 12, tzinfo=UTC)


async def finished(context: Context, user: User) -> str:
    """A call with a recording, a transcript and callbacks."""

    async def wav() -> AsyncIterator[bytes]:
        yield b"RIFF"

    call_id = await new_call(context, user, URL)
    await end(context, call_id, CallStatus.COMPLETED, recording=True)
    stored = await context.storage.put(recordings.storage_key(call_id, "audio/wav"), wav(), max_bytes=10)
    async with context.db.transaction() as session:
        await recordings.save(session, call_id, stored, "audio/wav")
    await save_transcript(context, call_id)
    async with context.db.transaction() as session:
        await session.execute(delete(Task).where(Task.call_id == call_id))
        await session.execute(update(Delivery).where(Delivery.call_id == call_id).values(status="delivered"))
    return call_id


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def age(context: Context, call_id: str, days: int) -> None:
    """Let the call, and what it left, be this old."""
    at = func.now() - timedelta(days=days)
    async with context.db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(ended_at=at))
        for left in (TranscriptRow, RecordingRow, Delivery):
            await session.execute(update(left).where(left.call_id == call_id).values(created_at=at))


async def test_old_recordings_and_transcripts_are_deleted(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    old, young = await finished(own, user), await finished(own, user)
    await age(own, old, 31)
    await age(own, young, 29)
    assert len(files(tmp_path / "own")) == 2
    await retention.delete_old(own.db, own.storage, days=30)
    assert [path.stem for path in files(tmp_path / "own")] == [young]
    async with own.db.transaction() as session:
        made = {row.call_id: row for row in await session.scalars(select(TranscriptRow))}
        assert (made[old].status, made[young].status) == ("failed", "ready")
        assert "30 days" in (made[old].failure or "")
        assert (made[old].summary, made[old].outcome, made[old].history) == (None, None, None)
        assert await session.get(RecordingRow, old) is None
        assert await session.get(RecordingRow, young) is not None
        assert list(await session.scalars(select(Delivery).filter_by(call_id=old))) == []
        assert await session.get(Call, old) is not None


async def test_what_was_deleted_is_not_old_any_more(
    context: Context, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are."""
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    for _ in range(5):
        await age(own, await finished(own, user), 31)
    assert await retention.delete_old(own.db, own.storage, days=30) >= 5
    assert await retention.delete_old(own.db, own.storage, days=30) == 0
    assert files(tmp_path / "own") == []


async def test_one_recording_that_cannot_be_deleted_keeps_no_other(
    context: Context, user: User, tmp_path: Path
) -> None:
    class Stubborn(FolderStorage):
        async def delete(self, keys: Sequence[str]) -> None:
            if any(first in key for key in keys):
                raise StorageError("not this one")
            await super().delete(keys)

    own = replace(context, storage=Stubborn(tmp_path / "own"))
    ids = sorted([await finished(own, user) for _ in range(3)])
    first = ids[0]
    for call_id in ids:
        await age(own, call_id, 31)
    await retention.delete_old(own.db, own.storage, days=30)
    assert [path.stem for path in files(tmp_path / "own")] == [first]
    async with own.db.transaction() as session:
        assert await session.get(RecordingRow, first) is not None


async def test_what_is_still_to_be_done_is_waited_for(context: Context, user: User, tmp_path: Path) -> None:
    """A callback that is still to be delivered, or a transcript that is being made again."""
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    delivering, retried = await finished(own, user), await finished(own, user)
    for call_id, kind in ((delivering, TaskKind.DELIVER), (retried, TaskKind.TRANSCRIBE)):
        await age(own, call_id, 31)
        async with own.db.transaction() as session:
            await tasks.add(session, kind, call_id)
    await retention.delete_old(own.db, own.storage, days=30)
    assert {path.stem for path in files(tmp_path / "own")} == {delivering, retried}


async def test_a_recording_that_came_late_is_as_old_as_its_call(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    call_id = await finished(own, user)
    await age(own, call_id, 31)
    async with own.db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(recording_url="https://example.com/a.wav"))
        await session.execute(update(TranscriptRow).where(TranscriptRow.call_id == call_id).values(history=None))
        for left in (RecordingRow, Delivery):
            await session.execute(update(left).where(left.call_id == call_id).values(created_at=func.now()))
    await retention.delete_old(own.db, own.storage, days=30)
    assert files(tmp_path / "own") == []
    async with own.db.transaction() as session:
        assert (await session.get_one(Call, call_id)).recording_url is None
        assert list(await session.scalars(select(Delivery).filter_by(call_id=call_id))) == []


async def test_callbacks_go_without_retention_and_pending_ones_stay(
    context: Context, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_DELIVERIES_AT_ONCE", 3)
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    assert own.settings.retention_days is None
    async with own.db.transaction() as session:  # those of other tests are younger, although they come first
        await session.execute(delete(Delivery))
    old, young, pending = [await finished(own, user) for _ in range(3)]
    for call_id, days in ((old, 31), (pending, 31), (young, 29)):
        await age(own, call_id, days)
    async with own.db.transaction() as session:
        await session.execute(update(Delivery).where(Delivery.call_id == pending).values(status="pending"))
        await session.execute(insert(TalkUsage).values(user_id=user.id, seconds=9, began_at=LONG_AGO))
    await retention_loop.once(own)
    async with own.db.transaction() as session:
        left = select(Delivery.call_id).where(Delivery.call_id.in_([old, young, pending]))
        assert set(await session.scalars(left)) == {young, pending}
        assert await session.scalar(select(func.count()).where(TalkUsage.began_at == LONG_AGO)) == 0
    assert len(files(tmp_path / "own")) == 3


async def test_a_calls_worker_does_it_and_only_one(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(
        context,
        storage=FolderStorage(tmp_path / "own"),
        settings=context.settings.model_copy(update={"retention_days": 1}),
    )
    old = await finished(own, user)
    await age(own, old, 2)
    async with own.db.transaction() as another:
        await another.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": retention_loop._LOCK})
        await retention_loop.once(own)
        assert len(files(tmp_path / "own")) == 1
    await retention_loop.once(own)
    assert files(tmp_path / "own") == []


async def test_a_user_is_erased_with_nothing_left(context: Context, user: User, tmp_path: Path) -> None:
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    calls = [await finished(own, user) for _ in range(2)]
    async with own.db.transaction() as session:
        did = await dids.add(session, PhoneNumber("917099999999"), owner=user, max_channels=1)
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
    """Such as a late report with a recording. Either it is erased too, or the erasing waits for it and says so."""
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    call_id = await finished(own, user)
    async with own.db.transaction() as session:
        await tasks.lock_call(session, call_id)
        erasing = asyncio.create_task(retention.erase_user(own.db, own.storage, user))
        await is_waiting_for_a_lock(own)
        await tasks.add(session, TaskKind.FETCH_RECORDING, call_id)
    with pytest.raises(Conflict, match=call_id):
        await erasing
    assert len(files(tmp_path / "own")) == 1


async def test_reports_and_erasing_do_not_wait_for_each_other(context: Context, tmp_path: Path) -> None:
    """A report has its call's lock and wants the user. Erasing has the user, and must have locked the call first."""
    own = replace(context, storage=FolderStorage(tmp_path / "own"))
    for n in range(10):
        user = await new_user(own.db)
        number = f"9160{n:08d}"
        async with own.db.transaction() as session:
            await dids.add(session, PhoneNumber(number), owner=user, max_channels=1)

        async def report(number: str = number) -> None:
            with suppress(ValidationFailed):
                async with own.db.transaction() as session:
                    delivering = CallLogReport(CUSTOMER, "NoAnswered", did=PhoneNumber(number))
                    await reports.apply_report(session, None, delivering, own.settings)

        async def erase(user: User = user) -> None:
            with suppress(Conflict):
                await retention.erase_user(own.db, own.storage, user)

        await report()
        await asyncio.gather(*(report() for _ in range(4)), erase(), *(report() for _ in range(4)))


async def test_a_user_with_a_live_call_is_shut_out_but_not_erased(context: Context, user: User) -> None:
    call_id = await new_call(context, user, URL)
    with pytest.raises(Conflict, match=call_id):
        await retention.erase_user(context.db, context.storage, user)
    async with context.db.transaction() as session:
        mine = await session.get_one(User, user.id)
        assert not mine.is_active
