"""A backup of a running installation is whole, and whoever restores it dials nobody and calls nobody back."""

import asyncio
import fcntl
import hashlib
import json
import resource
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from alembic import command
from sqlalchemy import text, update

from app import accounts, recordings, reports
from app.cli.migrate import alembic_config
from app.embedded import Postgres
from app.engine_models import Queue, Task, TaskKind
from app.models import Call, User
from app.numbers import PhoneNumber
from app.reports import CallLogReport
from app.settings import Settings
from app.storage import FolderStorage
from app.tasks import claim_overdue
from tests.command import invoke
from tests.conftest import PASSWORD
from tests.integration.call_runner import until
from tests.integration.command import CommandResult
from tests.integration.receiver import Receiver, listening
from tests.integration.whole_installation import WholeInstallation, new_installation

ANSWERS, BUSY, SILENT = "919999999999", "15005550001", "15005550007"
_FAILS_FIRST = 3


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver()) as opened:
        yield opened


@pytest.fixture
async def source(settings: Settings, tmp_path: Path) -> WholeInstallation:
    made = await new_installation(settings, tmp_path)
    await asyncio.to_thread(command.upgrade, alembic_config(made.settings.database_url), "head")
    return made


async def new_account(installation: WholeInstallation) -> User:
    async with installation.database() as db, db.transaction() as session:
        return await accounts.create_user(session, "somebody@example.com", PASSWORD)


async def run(installation: WholeInstallation, *arguments: str, **env: str) -> CommandResult:
    return await asyncio.to_thread(installation.ringback, *arguments, **env)


async def postpone(installation: WholeInstallation, call_ids: list[str]) -> None:
    """Keep these calls queued."""
    async with installation.database() as db, db.transaction() as session:
        later = update(Task).where(Task.call_id.in_(call_ids), Task.kind == TaskKind.DIAL)
        await session.execute(later.values(due_at=text("now() + interval '1 hour'")))


async def status_counts(installation: WholeInstallation) -> Counter[object]:
    return Counter(status for (status,) in await installation.rows("SELECT status FROM calls"))


def entries(file: Path) -> dict[str, str]:
    """The SHA-256 of each entry."""
    with tarfile.open(file) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: hashlib.sha256(content.read()).hexdigest() for name, content in members if content is not None}


def manifest(file: Path) -> dict[str, object]:
    with tarfile.open(file) as tar:
        content = tar.extractfile("manifest.json")
        assert content is not None
        found: dict[str, object] = json.load(content)
        return found


async def test_a_backup_under_load(
    source: WholeInstallation, receiver: Receiver, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "backup"

    async def refuse(request: web.Request, count: int) -> web.Response:
        if count <= _FAILS_FIRST:
            return web.Response(status=503, headers={"Retry-After": "3600"})  # so they stay pending
        return web.Response()

    receiver.answer = refuse
    user = await new_account(source)
    held = await source.place(user, ANSWERS, receiver.url, 3)
    await postpone(source, held)
    async with source.working():
        silent = await source.place(user, SILENT, receiver.url, 2)
        await source.place(user, BUSY, receiver.url, 3)
        await source.place(user, ANSWERS, receiver.url, 4)

        async def all_sorts() -> bool:
            await source.place(user, ANSWERS, receiver.url)  # until all happen to be there at once
            await asyncio.sleep(0.3)
            now = await status_counts(source)
            return all(now[status] for status in ("queued", "dialing", "ringing", "completed", "busy"))

        await until(all_sorts)
        (await run(source, "backup", str(file))).check()
        assert file.stat().st_mode & 0o777 == 0o600

        async def only_those_are_left() -> bool:
            now = await status_counts(source)
            still = await source.rows("SELECT 1 FROM tasks WHERE kind IN ('fetch_recording', 'transcribe')")
            return set(now) <= {"completed", "busy", "queued", "dialing"} and now["queued"] == 3 and still == []

        await until(only_those_are_left)
    pending = manifest(file)["pending"]
    assert isinstance(pending, dict)
    assert pending["dial"] >= 3
    assert pending["track"] >= 2
    assert pending["deliver"]

    # What is restored has every row and every recording of the backup.
    twin = await new_installation(settings, tmp_path)
    assert "tasks go on" in (await run(twin, "restore", str(file), "--resume")).check()
    again = tmp_path / "again"
    (await run(twin, "backup", str(again))).check()
    assert changed(entries(file), entries(again)) == set()

    # Workers on a restored installation reach nobody, although all were pending.
    restored = await new_installation(settings, tmp_path)
    assert "Live calls ended, neither dialed nor hung up: " in (await run(restored, "restore", str(file))).check()
    requests, received = source.requests(), len(receiver.received)
    async with restored.working():
        await until(lambda: has_no_tasks(restored))
    assert (source.requests(), len(receiver.received)) == (requests, received)
    assert max(count for (request, _), count in requests.items() if request == "place") == 1

    rows = await restored.rows(f"SELECT id, status, failure FROM calls WHERE id = ANY(ARRAY['{held[0]}'])")
    assert rows[0][1] == "failed"
    assert "and not dialed. Place a new call" in str(rows[0][2])
    rows = await restored.rows(f"SELECT status, failure FROM calls WHERE id = '{silent[0]}'")
    assert rows == [("timed_out", rows[0][1])]
    assert "this call was dialing" in str(rows[0][1])
    assert await restored.rows("SELECT id FROM calls WHERE ended_at IS NULL") == []
    assert await restored.rows("SELECT id FROM deliveries WHERE status = 'pending'") == []
    assert await restored.rows(
        "SELECT id FROM deliveries WHERE last_answer LIKE 'Not sent: restored from a backup of%'"
    )
    assert await restored.rows("SELECT id FROM transcripts WHERE status IN ('pending', 'processing')") == []
    assert await restored.rows("SELECT id FROM login_sessions WHERE revoked_at IS NULL") == []
    unexplained = """
        SELECT calls.id FROM calls JOIN transcripts ON call_id = calls.id WHERE calls.status <> 'busy'
        AND transcripts.status <> 'ready' AND NOT EXISTS (SELECT FROM call_events WHERE call_id = calls.id
        AND detail LIKE 'Restored from a backup of%')
    """
    assert await restored.rows(unexplained) == []
    assert "not dialed" in (await run(restored, "calls", "show", held[0])).check()
    assert await restored.rows("SELECT action FROM audit_lines ORDER BY id DESC LIMIT 1") == [("restored a backup",)]


def changed(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """The entries that differ, apart from those about this backup, who has claimed which task, and the restore."""
    names = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    return names - {"manifest.json", "SHA256SUMS", "tables/tasks/000001.copy", "tables/audit_lines/000001.copy"}


async def has_no_tasks(installation: WholeInstallation) -> bool:
    return await installation.count_tasks() == 0


async def test_work_goes_on_if_nothing_ran_meanwhile(
    source: WholeInstallation, receiver: Receiver, settings: Settings, tmp_path: Path
) -> None:
    user = await new_account(source)
    ids = await source.place(user, ANSWERS, receiver.url, 4) + await source.place(user, BUSY, receiver.url, 2)
    (await run(source, "backup", str(tmp_path / "backup"))).check()
    restored = await new_installation(settings, tmp_path)
    (await run(restored, "restore", str(tmp_path / "backup"), "--resume")).check()
    async with restored.working():
        await until(lambda: has_no_tasks(restored))
    placed = {call_id: count for (request, call_id), count in source.requests().items() if request == "place"}
    assert placed == dict.fromkeys(ids, 1)
    assert await status_counts(restored) == {"completed": 4, "busy": 2}
    messages = Counter(callback.id for callback in receiver.received)
    assert len(messages) == 12  # the end and the transcript of each
    assert set(messages.values()) == {1}


async def test_nothing_can_be_claimed_after_half_a_restore(
    source: WholeInstallation, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await new_account(source)
    (call_id,) = await source.place(user, ANSWERS, None)
    (await run(source, "backup", str(tmp_path / "backup"))).check()
    restored = await new_installation(settings, tmp_path)

    def crash() -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("app.cli.migrate.migrate_to_head", crash)
        assert (await run(restored, "restore", str(tmp_path / "backup"))).code
    assert await restored.count_tasks() == 1
    async with restored.database() as db:
        for kind in TaskKind:
            for queue in Queue:
                assert not await claim_overdue(db, queue, limit=9, overdue_seconds=-9e6, lease_seconds=1, kind=kind)
    assert "A restore did not finish" in (await run(restored, "doctor")).out
    (await run(restored, "settle", "--yes")).check()
    assert "A restore did not finish" not in (await run(restored, "doctor")).out
    assert await restored.rows("SELECT id, status FROM calls") == [(call_id, "failed")]
    assert await restored.count_tasks() == 0


async def test_a_database_that_other_tools_restored(source: WholeInstallation, receiver: Receiver) -> None:
    user = await new_account(source)
    await source.place(user, ANSWERS, receiver.url, 2)
    async with source.working():

        async def they_live() -> bool:
            return await source.rows("SELECT count(*) FROM workers") == [(3,)]

        await until(they_live)
        refused = (await run(source, "settle", "--yes")).refused()
    assert "Stop them" in refused
    await source.place(user, ANSWERS, receiver.url, 2)
    requests = source.requests()
    assert "nor hung up: 4." in (await run(source, "settle", "--yes")).check()
    assert "nor hung up: 0." in (await run(source, "settle", "--yes")).check()
    received = len(receiver.received)
    async with source.working():
        await until(lambda: has_no_tasks(source))
    assert (source.requests(), len(receiver.received)) == (requests, received)


async def test_a_call_that_another_system_has(source: WholeInstallation, receiver: Receiver) -> None:
    """Its end may still be reported, and is then known. The client is not called back."""
    user = await new_account(source)
    report = CallLogReport(customer_number=PhoneNumber(ANSWERS), status="Ringing", call_date="2026-11-20T10:15:30")
    async with source.database() as db:
        async with db.transaction() as session:
            call_id = (await reports.apply_report(session, user.id, report, source.settings)).id
        async with db.transaction() as session:
            await session.execute(text("UPDATE calls SET callback_url = :url"), {"url": receiver.url})
        (await run(source, "settle", "--yes")).check()
        assert await source.rows("SELECT id, status FROM calls") == [(call_id, "timed_out")]
        async with db.transaction() as session:
            await reports.apply_report(session, user.id, replace(report, status="Busy"), source.settings)
    async with source.working():
        await until(lambda: has_no_tasks(source))
    assert await source.rows("SELECT id, status FROM calls") == [(call_id, "busy")]
    assert receiver.received == []


async def test_what_is_not_empty_or_in_use_is_refused(
    source: WholeInstallation, settings: Settings, tmp_path: Path
) -> None:
    await new_account(source)
    (await run(source, "backup", str(tmp_path / "backup"))).check()
    assert "rows in users" in (await run(source, "restore", str(tmp_path / "backup"))).refused()

    other = await new_installation(settings, tmp_path)
    recording = other.settings.data_dir / "recordings" / "aa" / "call_a.wav"
    recording.parent.mkdir(parents=True)
    recording.touch()
    assert "There are recordings already" in (await run(other, "restore", str(tmp_path / "backup"))).refused()
    recording.unlink()
    async with other.database() as db, db.statement() as connection:
        await connection.execute(text("SELECT 1"))
        refused = (await run(other, "restore", str(tmp_path / "backup"))).refused()
        assert "Somebody else uses the database: " in refused
        (await run(other, "restore", str(tmp_path / "backup"), "--ignore-connections")).check()


async def test_a_recording_that_is_deleted_meanwhile(
    source: WholeInstallation, settings: Settings, tmp_path: Path
) -> None:
    user = await new_account(source)
    storage, paths = FolderStorage(source.settings.data_dir), []
    for call_id in await source.place(user, ANSWERS, None, 2):

        async def spoken(call_id: str = call_id) -> AsyncIterator[bytes]:
            yield call_id.encode()

        stored = await storage.put(recordings.storage_key(call_id, "audio/wav"), spoken(), max_bytes=99)
        async with source.database() as db, db.transaction() as session:
            await recordings.save(session, call_id, stored, "audio/wav")
        paths.append(source.settings.data_dir / stored.key)
    gone, stays = paths
    gone.unlink()
    done = await run(source, "backup", str(tmp_path / "backup"))
    assert done.code == 0
    assert f"{gone.name} is not there" in done.stderr
    restored = await new_installation(settings, tmp_path)
    (await run(restored, "restore", str(tmp_path / "backup"))).check()
    assert await restored.rows("SELECT call_id FROM recordings") == [(stays.stem,)]
    assert [path.read_bytes() for path in restored.settings.data_dir.rglob("*.wav")] == [stays.read_bytes()]
    assert "was not there when the backup" in (await run(restored, "calls", "show", gone.stem)).check()


async def test_a_file_that_cannot_be_used(source: WholeInstallation, settings: Settings, tmp_path: Path) -> None:
    user = await new_account(source)
    await source.place(user, ANSWERS, None, 3)
    file = tmp_path / "backup"
    (await run(source, "backup", str(file))).check()
    target = await new_installation(settings, tmp_path)
    content = file.read_bytes()
    for damaged in (content[:200], content[:-9], content[:400] + b"\0" + content[401:], b"", b"plain text"):
        (tmp_path / "damaged").write_bytes(damaged)
        assert "Nothing was written" in (await run(target, "restore", str(tmp_path / "damaged"))).refused()
    assert await target.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []

    other_key = {"RINGBACK_SECRET_KEY": "0123456789abcdef0123456789abcdef"}
    assert "is not that of the backup" in (await run(target, "restore", str(file), **other_key)).refused()
    (await run(target, "restore", str(file), "--other-key", **other_key)).check()


async def test_the_secret_key(source: WholeInstallation, settings: Settings, tmp_path: Path) -> None:
    added = ("-o", "account_sid=AC123", "-o", "auth_token=very-secret")
    (await run(source, "providers", "add", "trunk", "--kind", "twilio", *added)).check()
    (await run(source, "backup", str(tmp_path / "without"))).check()
    (await run(source, "backup", str(tmp_path / "with"), "--with-secret-key")).check()
    assert "secret-key" not in entries(tmp_path / "without")
    key = settings.secret_key.get_secret_value()
    assert entries(tmp_path / "with")["secret-key"] == hashlib.sha256(key.encode()).hexdigest()
    restored = await new_installation(settings, tmp_path)
    env = {"RINGBACK_SECRET_KEY": "0123456789abcdef0123456789abcdef"}
    done = await run(restored, "restore", str(tmp_path / "without"), "--other-key", **env)
    assert done.code == 0
    assert "ringback providers set trunk" in done.stderr


def in_folder(folder: Path, *arguments: str) -> CommandResult:
    """Run a command on the data folder of a `ringback up` that does not run."""
    done = invoke({"RINGBACK_DATA_DIR": str(folder)}, *arguments)
    return CommandResult(done.returncode, done.stdout, done.stderr)


async def test_the_data_folder_of_up(source: WholeInstallation, tmp_path: Path) -> None:
    """Its PostgreSQL is started for the command, and stopped again."""
    user = await new_account(source)
    await source.place(user, BUSY, None)
    (await run(source, "backup", str(tmp_path / "backup"))).check()
    (await run(source, "backup", str(tmp_path / "with-key"), "--with-secret-key")).check()
    folder = tmp_path / "var"
    refused = await asyncio.to_thread(in_folder, folder, "restore", str(tmp_path / "backup"))
    assert "RINGBACK_SECRET_KEY is not that of the backup" in refused.refused()
    (await asyncio.to_thread(in_folder, folder, "restore", str(tmp_path / "with-key"), "--resume")).check()
    key = json.loads((folder / "instance.json").read_text())["secret_key"]
    assert key == source.settings.secret_key.get_secret_value()
    (await asyncio.to_thread(in_folder, folder, "backup", str(tmp_path / "again"))).check()
    assert changed(entries(tmp_path / "backup"), entries(tmp_path / "again")) == set()
    (await asyncio.to_thread(in_folder, folder, "settle", "--yes")).check()
    assert not Postgres(folder).is_running
    with (folder / "up.pid").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as `up` does
        running = await asyncio.to_thread(in_folder, folder, "restore", str(tmp_path / "with-key"))
    assert "Ringback runs in" in running.refused()


async def test_a_full_disk_leaves_no_file(source: WholeInstallation, tmp_path: Path) -> None:
    await new_account(source)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limit[1]))  # of this process. The servers are others
    try:
        refused = (await run(source, "backup", str(tmp_path / "backup"))).refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "Cannot write" in refused
    assert "Nothing of it is left" in refused
    assert list(tmp_path.glob("backup*")) == []
    missing = (await run(source, "backup", str(tmp_path / "nowhere" / "backup"))).refused()
    assert "No such file or directory" in missing


async def test_releases(source: WholeInstallation, settings: Settings, tmp_path: Path) -> None:
    """A backup of an earlier release is brought up to date. One of a later release is refused."""
    older = await new_installation(settings, tmp_path)
    await asyncio.to_thread(command.upgrade, alembic_config(older.settings.database_url), "0005")
    async with older.database() as db, db.transaction() as session:
        await session.execute(
            text("INSERT INTO users (id, email, password_hash) VALUES ('USR_0000000A', 'a@example.com', '')")
        )
        await session.execute(
            text(
                "INSERT INTO calls (id, user_id, customer_number, agent_number) "
                "VALUES ('call_0000000000000001', 'USR_0000000A', '9876543210', '09811111111')"
            )
        )
        await session.execute(
            text(
                "INSERT INTO transcripts (id, call_id, user_id) "
                "VALUES ('0123456789abcdef01234567', 'call_0000000000000001', 'USR_0000000A')"
            )
        )
        await session.execute(
            text("INSERT INTO tasks (kind, queue, call_id) VALUES ('dial', 'calls', 'call_0000000000000001')")
        )
    (await run(older, "backup", str(tmp_path / "older"))).check()
    assert manifest(tmp_path / "older")["revision"] == "0005"
    (await run(source, "restore", str(tmp_path / "older"))).check()
    assert await source.rows("SELECT customer_number, status FROM calls") == [("919876543210", "failed")]

    newer = await new_installation(settings, tmp_path)
    async with source.database() as db, db.transaction() as session:
        await session.execute(update(Call).values(language=None))
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    (await run(source, "backup", str(tmp_path / "newer"))).check()
    assert "Install that version or a newer one" in (await run(newer, "restore", str(tmp_path / "newer"))).refused()
