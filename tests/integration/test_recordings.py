"""A recording is fetched once, stored once and transcribed, whatever else changes its call meanwhile."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app import calls, recordings, reports
from app.engine_models import Task, TaskKind
from app.models import Call, RecordingRow
from app.reports import CallLogReport
from app.storage import FolderStorage
from app.telephony import base
from app.telephony.base import CallEvent, CallStatus, ProviderError, RecordingUnavailable, Snapshot, Talk
from app.transcription.base import Recognition, Word
from tests.conftest import CUSTOMER
from tests.integration.call_runner import CallRunner, MakeCallRunner, ScriptedProvider, StubRecognizer, completed
from tests.integration.receiver import Receiver, listening
from worker.context import Context
from worker.host_limiter import HostLimiter
from worker.runner import HANDLERS

WAV = Path(__file__).parents[1] / "audio/call_callback.wav"
TALKING = Snapshot((CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC)),))


async def reported(context: Context, call_id: str, url: str | None = None) -> None:
    async with context.db.transaction() as session:
        answered = CallLogReport(CUSTOMER, "Answered", call_id=call_id, recording_url=url)
        await reports.apply_report(session, None, answered, context.settings)


async def timed_out_while_talking(runner: CallRunner) -> CallRunner:
    await runner.run("dial")
    await runner.run("track")
    silent = CallEvent("timed_out", CallStatus.TIMED_OUT, datetime.now(UTC), has_recording=True)
    async with runner.context.db.transaction() as session:
        await calls.apply_events(session, runner.call_id, [silent], max_call_seconds=60)
    return runner


async def test_what_is_stored_stays_when_a_late_report_corrects_the_call(make_runner: MakeCallRunner) -> None:
    """The provider no longer has it then."""
    runner = await timed_out_while_talking(await make_runner(ScriptedProvider(recording=WAV, snapshot=TALKING)))
    await runner.run("fetch_recording")
    runner.provider.recording = RecordingUnavailable("discarded")
    await reported(runner.context, runner.call_id)
    assert await runner.open_tasks() == ["transcribe"]
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "ready"
    assert (await runner.call()).status == "completed"


async def test_a_recording_is_fetched_once_after_several_reports(make_runner: MakeCallRunner) -> None:
    away = ScriptedProvider(recording=ProviderError("away"), snapshot=TALKING)
    runner = await timed_out_while_talking(await make_runner(away))
    await runner.run("fetch_recording")
    await reported(runner.context, runner.call_id)
    assert await runner.open_tasks() == ["fetch_recording"]
    runner.provider.recording = WAV
    await runner.run("fetch_recording")
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "ready"


async def test_a_place_that_is_reported_while_another_is_tried(make_runner: MakeCallRunner) -> None:
    async with listening(Receiver(files={"/a.wav": WAV.read_bytes()})) as server:

        class ReportedMeanwhile(ScriptedProvider):
            async def open_recording(self, ref: base.CallRef, talk: Talk | None) -> base.Recording:
                await reported(runner.context, runner.call_id, f"http://127.0.0.1:{server.port}/a.wav")
                raise RecordingUnavailable("there is none here")

        runner = await make_runner(ReportedMeanwhile())
        await completed(runner)
        await runner.run("fetch_recording")
        assert await runner.open_tasks() == ["fetch_recording"]
        assert (await runner.transcript()).status == "pending"
        await runner.run("fetch_recording")
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "ready"


async def test_a_place_that_is_reported_when_all_attempts_at_another_are_spent(make_runner: MakeCallRunner) -> None:
    """Also during the last attempt: the new URL gets all attempts."""
    runner = await make_runner(ScriptedProvider(recording=ProviderError("away")))
    await completed(runner)
    for _ in HANDLERS[TaskKind.FETCH_RECORDING].delays:
        await runner.run("fetch_recording")

    class ReportedMeanwhile(ScriptedProvider):
        async def open_recording(self, ref: base.CallRef, talk: Talk | None) -> base.Recording:
            await reported(runner.context, runner.call_id, "http://127.0.0.1:1/a.wav")
            raise ProviderError("away")

    runner.use(ReportedMeanwhile())
    await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "pending"
    for _ in HANDLERS[TaskKind.FETCH_RECORDING].delays:
        await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "pending"
    await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "failed"


async def test_what_was_stored_and_never_known_is_deleted_when_it_is_given_up(
    make_runner: MakeCallRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await make_runner(ScriptedProvider(recording=WAV))
    runner.context = replace(runner.context, storage=FolderStorage(tmp_path / "own"))
    await completed(runner)

    async def fail(*_: object) -> None:
        raise RuntimeError("the database has no room")

    monkeypatch.setattr(recordings, "save", fail)
    await runner.run_until_given_up("fetch_recording")
    assert (await runner.transcript()).status == "failed"
    assert [path for path in (tmp_path / "own").rglob("*") if path.is_file()] == []


async def test_a_slow_host_has_its_share_of_hands_and_who_waits_for_it_counts_no_attempt(
    make_runner: MakeCallRunner,
) -> None:
    free = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await free.wait()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav"
        hosts = HostLimiter(10, each=1)
        houses = []
        for _ in range(2):
            runner = await make_runner(ScriptedProvider())
            runner.context = replace(runner.context, recording_hosts=hosts)
            await reported(runner.context, runner.call_id, url)
            houses.append(runner)
        first, second = houses
        fetching = asyncio.create_task(first.run("fetch_recording"))
        while not hosts.wait(url.split("/")[2]):
            await asyncio.sleep(0.01)
        for _ in range(30):  # more than the number of attempts
            await second.run("fetch_recording")
        free.set()
        await fetching
    async with second.context.db.transaction() as session:
        fetch = select(Task.attempts).filter_by(call_id=second.call_id, kind="fetch_recording")
        assert await session.scalar(fetch) == 0


async def test_nothing_is_stored_for_a_call_that_was_erased_meanwhile(
    make_runner: MakeCallRunner, tmp_path: Path
) -> None:
    """By a worker that was frozen while another worker finished its task, and the user was erased."""

    class Frozen(FolderStorage):
        async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int):  # type: ignore[no-untyped-def]
            async with runner.context.db.transaction() as session:
                await session.execute(delete(Call).where(Call.id == runner.call_id))
            return await super().put(key, chunks, max_bytes=max_bytes)

    runner = await make_runner(ScriptedProvider(recording=WAV))
    runner.context = replace(runner.context, storage=Frozen(tmp_path / "own"))
    await completed(runner)
    await runner.run("fetch_recording")
    assert [path for path in (tmp_path / "own").rglob("*") if path.is_file()] == []


async def test_what_a_killed_worker_left_half_done_is_deleted_with_the_rest(tmp_path: Path) -> None:
    killed = f"""
import asyncio, os
from pathlib import Path
from app.storage import FolderStorage
async def chunks():
    yield b"what they said"
    os.kill(os.getpid(), 9)
asyncio.run(FolderStorage(Path({str(tmp_path)!r})).put("recordings/aa/call_x.wav", chunks(), max_bytes=10**9))
"""
    subprocess.run([sys.executable, "-c", killed], env=dict(os.environ), check=False)
    assert len(list(tmp_path.rglob("*.part"))) == 1
    await FolderStorage(tmp_path).delete(["recordings/aa/call_x", "recordings/aa/call_x.wav"])
    assert list(tmp_path.rglob("*.*")) == []


async def test_an_engine_that_answers_with_what_is_no_text(make_runner: MakeCallRunner) -> None:
    said = Recognition(((Word(" Hel\0lo?", 0, 1),), (Word(" Yes\ud800.", 2, 3),)), "en")
    runner = await completed(await make_runner(ScriptedProvider(recording=WAV), StubRecognizer(said)))
    await runner.run("fetch_recording")
    await runner.run("transcribe")
    made = await runner.transcript()
    assert made.status == "ready"
    assert [turn["content"] for turn in made.history or ()] == ["Hello?", "Yes?."]


async def test_an_unexpected_failure_tells_clients_nothing_of_the_inside(make_runner: MakeCallRunner) -> None:
    runner = await completed(
        await make_runner(ScriptedProvider(recording=WAV), StubRecognizer(RuntimeError("[SQL: SELECT secret]")))
    )
    await runner.run("fetch_recording")
    await runner.run_until_given_up("transcribe")
    assert (await runner.transcript()).failure == (
        "Something went wrong on the server, several times. Its log has more under the call's id"
    )


async def test_a_transcript_whose_recording_is_gone_comes_to_an_end(make_runner: MakeCallRunner) -> None:
    """Retention deleted it, and meanwhile somebody asked for the transcript."""
    runner = await completed(await make_runner(ScriptedProvider(recording=WAV)))
    await runner.run("fetch_recording")
    async with runner.context.db.transaction() as session:
        await session.execute(delete(RecordingRow).where(RecordingRow.call_id == runner.call_id))
    await runner.run("transcribe")
    assert (await runner.transcript()).status == "failed"
