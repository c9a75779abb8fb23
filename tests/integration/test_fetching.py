"""When a reported recording is fetched again, and that every fetch ends with a reason."""

import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from app import reports
from app.engine_models import Task, TaskKind
from app.models import RecordingRow
from app.outbound import LONGEST_DOWNLOAD_SECONDS, OutboundError
from app.reports import CallLogReport
from tests.conftest import CUSTOMER
from tests.integration.call_runner import CallRunner, MakeCallRunner, ScriptedProvider
from tests.integration.raw_server import RawServer, ReceivedRequest, response, serving
from worker.fetch_recording import LONGEST_SECONDS
from worker.host_limiter import HostLimiter
from worker.runner import HANDLERS

WAV = (Path(__file__).parents[1] / "audio/call_callback.wav").read_bytes()
FETCH = HANDLERS[TaskKind.FETCH_RECORDING]
DOCS = Path(__file__).parents[2] / "docs/recordings.md"


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with serving(RawServer()) as running:
        yield running


@pytest.fixture
def reported(make_runner: MakeCallRunner) -> Callable[[str], object]:
    async def make(url: str) -> CallRunner:
        runner = await make_runner(ScriptedProvider())
        answered = CallLogReport(CUSTOMER, "Answered", call_id=runner.call_id, recording_url=url)
        async with runner.context.db.transaction() as session:
            await reports.apply_report(session, None, answered, runner.context.settings)
        return runner

    return make


async def due_in(runner: CallRunner) -> float | None:
    """Seconds until the next attempt. None: there is none."""
    seconds = func.extract("epoch", Task.due_at - func.now())
    query = select(seconds).where(Task.call_id == runner.call_id, Task.kind == "fetch_recording")
    async with runner.context.db.transaction() as session:
        found = await session.scalar(query)
    return None if found is None else float(found)


async def age_task(runner: CallRunner, seconds: float) -> None:
    """Let time pass for the task."""
    added = func.now() - timedelta(seconds=seconds)
    async with runner.context.db.transaction() as session:
        await session.execute(update(Task).where(Task.call_id == runner.call_id).values(created_at=added))


async def try_all(runner: CallRunner) -> list[float]:
    """Run all attempts, with the pauses of the schedule. Returns the pauses."""
    pauses: list[float] = []
    await runner.run("fetch_recording")
    while (pause := await due_in(runner)) is not None:
        assert (await runner.transcript()).status == "pending"
        pauses.append(pause)
        assert len(pauses) < 100
        await age_task(runner, sum(pauses))
        await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "failed"
    return pauses


async def test_what_is_not_there_is_waited_for_as_long_as_the_documentation_says(
    reported: MakeCallRunner, server: RawServer
) -> None:
    runner = await reported(server.url + "/a.wav")
    pauses = await try_all(runner)
    assert pauses == pytest.approx(FETCH.delays, abs=2)
    assert len(server.asked) == len(pauses) + 1
    assert (await runner.transcript()).failure == "The recording could not be fetched: the server answered 404"
    assert sum(FETCH.delays) + LONGEST_DOWNLOAD_SECONDS > LONGEST_SECONDS > sum(FETCH.delays)
    documented = re.search(r"true -->\n(.+) s\n", DOCS.read_text())
    assert documented
    assert tuple(float(pause) for pause in documented[1].split(", ")) == FETCH.delays


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_what_is_there_in_five_minutes_is_had(reported: MakeCallRunner, server: RawServer, status: int) -> None:
    server.answer = lambda _: response(status)
    runner = await reported(server.url + "/a.wav")
    waited = 0.0
    while waited < 300:
        await runner.run("fetch_recording")
        waited += await due_in(runner) or 0.0
        await age_task(runner, waited)
    server.answer = lambda _: response(200, WAV)
    await runner.run("fetch_recording")
    assert "transcribe" in await runner.open_tasks()


@pytest.mark.parametrize(
    ("answer", "why", "tries"),
    [
        # Like other failures, a redirect was tried for an hour, which is longer than clients poll.
        (lambda asked: response(302, Location=asked.target), "the server redirected more than 5 times", 6),
        (lambda asked: response(301, Location="ftp://a.example/"), "neither http nor https", 6),
        (lambda asked: response(302, Location="http://10.0.0.1/a.wav"), "10.0.0.1 is not a public address", 6),
        (lambda asked: response(200, WAV, Content_Encoding="zstd"), "compressed by zstd", 6),
        (lambda asked: response(410), "gone", 1),
        (lambda asked: response(200, Content_Length=str(2**30)), "larger than", 1),
    ],
)
async def test_what_cannot_get_better_ends_soon(
    reported: MakeCallRunner, server: RawServer, answer: Callable[[ReceivedRequest], bytes], why: str, tries: int
) -> None:
    server.answer = answer
    runner = await reported(server.url + "/a.wav")
    pauses = await try_all(runner)
    assert len(pauses) + 1 == tries
    assert sum(pauses) < 90
    assert len(server.asked) <= 60
    assert why in ((await runner.transcript()).failure or "")


async def test_a_url_that_nobody_can_request_ends_at_once(reported: MakeCallRunner) -> None:
    runner = await reported("http://u:[@127.0.0.1/a.wav")
    assert await try_all(runner) == []
    assert "no http or https URL" in ((await runner.transcript()).failure or "")


async def test_retry_after_makes_a_pause_longer_but_not_endless(reported: MakeCallRunner, server: RawServer) -> None:
    server.answer = lambda _: response(429, Retry_After="100")
    runner = await reported(server.url + "/a.wav")
    await runner.run("fetch_recording")
    assert await due_in(runner) == pytest.approx(100, abs=2)
    server.answer = lambda _: response(503, Retry_After=str(10**9))
    await runner.run("fetch_recording")
    pause = await due_in(runner)
    assert pause == pytest.approx(LONGEST_SECONDS, abs=5)
    await age_task(runner, pause or 0)
    await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "failed"


async def test_a_slow_server_cannot_stretch_the_schedule(reported: MakeCallRunner, server: RawServer) -> None:
    """An attempt may take half an hour, so the number of attempts does not limit the time."""
    runner = await reported(server.url + "/a.wav")
    await runner.run("fetch_recording")
    await age_task(runner, LONGEST_SECONDS + 1)
    await runner.run("fetch_recording")
    assert (await runner.transcript()).status == "failed"


@pytest.mark.parametrize(("silent", "ends_after"), [(True, LONGEST_SECONDS), (False, 24 * 3600)])
async def test_who_waits_for_a_turn_comes_to_an_end(reported: MakeCallRunner, silent: bool, ends_after: float) -> None:
    """Waiting is not an attempt, and a host may be silent for ever."""
    runner = await reported("http://127.0.0.1:1/a.wav")
    hosts = HostLimiter(10, each=1)
    runner.context = replace(runner.context, recording_hosts=hosts)
    if silent:
        with pytest.raises(OutboundError):
            async with hosts.request("127.0.0.1:1"):
                raise OutboundError("no answer")
    async with hosts.request("127.0.0.1:1"):
        for age in (0, ends_after - 60):
            await age_task(runner, age)
            await runner.run("fetch_recording")
            assert (await runner.transcript()).status == "pending"
        await runner.run("fetch_recording")
        assert (await runner.transcript()).status == "pending", "its age is kept while it waits"
        await age_task(runner, ends_after + 60)
        await runner.run("fetch_recording")
    transcript = await runner.transcript()
    assert transcript.status == "failed"
    assert "127.0.0.1:1 " in (transcript.failure or "")


async def test_workers_that_die_on_a_recording_again_and_again(reported: MakeCallRunner, server: RawServer) -> None:
    runner = await reported(server.url + "/a.wav")
    async with runner.context.db.transaction() as session:
        died = {"attempts": len(FETCH.delays) + 1}
        await session.execute(update(Task).where(Task.call_id == runner.call_id).values(**died))
    await runner.run("fetch_recording")
    assert "several times" in ((await runner.transcript()).failure or "")
    assert server.asked == []


async def test_a_link_that_redirects_to_a_compressed_file(reported: MakeCallRunner, server: RawServer) -> None:
    """A file ending at either end of the redirect gives the type."""
    signed = "/objects/1%2F2?X-Amz-Signature=a%2Bb+c"

    def answer(asked: ReceivedRequest) -> bytes:
        if asked.target == "/a.wav":
            return response(302, Location=server.url + signed)
        return response(200, gzip.compress(WAV), Content_Encoding="gzip", Content_Type="application/octet-stream")

    server.answer = answer
    runner = await reported(server.url + "/a.wav")
    await runner.run("fetch_recording")
    assert server.targets == ["/a.wav", signed]
    async with runner.context.db.transaction() as session:
        stored = await session.get_one(RecordingRow, runner.call_id)
    assert (stored.size_bytes, stored.sha256) == (len(WAV), hashlib.sha256(WAV).hexdigest())
    assert stored.content_type == "audio/wav"
