"""Runs a worker's tasks one by one, with a provider that fails as real ones do.

`ScriptedProvider` is a hand-written fake, because the simulator never refuses an order, loses an answer or is away.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import and_, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import cancellation, tasks
from app.db import Database
from app.engine_models import Task
from app.models import Call, TranscriptRow
from app.provider_directory import ProviderDirectory
from app.tasks import ClaimedTask
from app.telephony import base
from app.telephony.base import (
    Accepted,
    CallEvent,
    CallOrder,
    CallRef,
    CallStatus,
    Capabilities,
    Finding,
    ProviderError,
    ProviderEvent,
    Snapshot,
    Talk,
    TelephonyProvider,
)
from app.transcription.base import Audio, Recognition, SpeechRequest, Word
from worker.context import Context
from worker.runner import HANDLERS, run_claimed


@dataclass
class ScriptedProvider(TelephonyProvider):
    """Answers as the test says, and records the orders."""

    kind = "scripted"
    capabilities = Capabilities(hangup=True, discard_recording=True, dual_channel=True, poll_seconds=0.01)
    placing: base.PlaceResult | Exception = field(default_factory=lambda: Accepted("ref-1"))
    snapshot: Snapshot | Exception | None = None
    recording: Path | Exception | None = None
    agent_channel: int = 1
    orders: list[CallOrder] = field(default_factory=list)
    hangups: list[CallRef] = field(default_factory=list)
    connecting: base.PlaceResult = field(default_factory=lambda: Accepted("ref-2"))
    connects: list[CallOrder] = field(default_factory=list)
    discarded: list[CallRef] = field(default_factory=list)

    async def place(self, order: CallOrder) -> base.PlaceResult:
        self.orders.append(order)
        if isinstance(self.placing, Exception):
            raise self.placing
        return self.placing

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        if isinstance(self.snapshot, Exception):
            raise self.snapshot
        return self.snapshot

    async def hangup(self, ref: CallRef) -> None:
        self.hangups.append(ref)

    async def connect(self, order: CallOrder) -> base.PlaceResult:
        self.connects.append(order)
        return self.connecting

    async def discard_recording(self, ref: CallRef) -> None:
        self.discarded.append(ref)

    async def open_recording(self, ref: CallRef, talk: Talk | None) -> base.Recording:
        if isinstance(self.recording, Exception):
            raise self.recording
        assert self.recording is not None
        content = self.recording.read_bytes()

        async def chunks() -> AsyncIterator[bytes]:
            yield content[: len(content) // 2]
            yield content[len(content) // 2 :]

        return base.Recording("audio/wav", chunks(), self.agent_channel)

    async def check(self) -> AsyncIterator[Finding]:
        yield Finding("script", ok=True)

    async def aclose(self) -> None:
        pass


@dataclass
class Streaming(ScriptedProvider):
    """A provider with a stream. None in a stream cuts it."""

    capabilities = Capabilities(hangup=True, stream=True)
    name: str = field(default_factory=lambda: f"streaming-{uuid4().hex}")
    streams: list["asyncio.Queue[ProviderEvent | None]"] = field(default_factory=list)
    is_away: bool = False

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        if self.is_away:
            raise ProviderError("away")
        stream: asyncio.Queue[ProviderEvent | None] = asyncio.Queue()
        self.streams.append(stream)

        async def reports() -> AsyncIterator[ProviderEvent]:
            while (report := await stream.get()) is not None:
                yield report
            raise ProviderError("cut")

        yield reports()


class StubRecognizer:
    """A recognizer with a fixed result, or a fixed error."""

    name = "a test's"

    def __init__(self, result: Recognition | Exception) -> None:
        self.result = result
        self.times = 0
        self.requests: list[SpeechRequest] = []

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        self.times += 1
        self.requests.append(request)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def aclose(self) -> None:
        pass


SAID = Recognition(((Word(" Hello?", 0, 1),), (Word(" Call me back tomorrow.", 2, 3),)), "en")


class CallRunner:
    """A worker's context and one call, whose tasks a test runs one by one."""

    def __init__(self, context: Context, call_id: str, provider: Any) -> None:
        self.context = context
        self.call_id = call_id
        self.provider = provider

    def use(self, provider: TelephonyProvider) -> None:
        """From now on, this provider has the call."""
        self.provider = provider
        directory = ProviderDirectory(self.context.db, self.context.settings, environment=provider)
        self.context = replace(self.context, providers=directory)

    async def cancel(self, session: AsyncSession) -> str:
        return await cancellation.cancel(session, self.context.providers, self.call_id)

    async def run(self, kind: str) -> None:
        """Make the call's task of this kind due, and run it as a worker does."""
        async with self.context.db.transaction() as session:
            past = func.now() - timedelta(seconds=1)
            task_id = await session.scalar(
                update(Task)
                .where(Task.call_id == self.call_id, Task.kind == kind)
                .values(due_at=past)
                .returning(Task.id)
            )
        assert task_id is not None, f"there is no {kind} task"
        await run_now(self.context, task_id)

    async def run_until_given_up(self, kind: str) -> None:
        for _ in range(len(HANDLERS[kind].delays) + 1):  # type: ignore[index]
            await self.run(kind)

    async def open_tasks(self) -> list[str]:
        """The kinds of the call's open tasks, without `hangup`, which follows every end."""
        async with self.context.db.transaction() as session:
            return list(
                await session.scalars(
                    select(Task.kind).where(Task.call_id == self.call_id, Task.kind != "hangup").order_by(Task.kind)
                )
            )

    async def call(self) -> Call:
        async with self.context.db.transaction() as session:
            return await session.get_one(Call, self.call_id)

    async def transcript(self) -> TranscriptRow:
        async with self.context.db.transaction() as session:
            return (await session.scalars(select(TranscriptRow).filter_by(call_id=self.call_id))).one()

    async def age(self, seconds: float) -> None:
        """Let time pass for the call."""
        async with self.context.db.transaction() as session:
            by = timedelta(seconds=seconds)
            await session.execute(
                update(Call)
                .where(Call.id == self.call_id)
                .values(
                    dialed_at=Call.dialed_at - by,
                    customer_dialed_at=Call.customer_dialed_at - by,
                    expires_at=Call.expires_at - by,
                )
            )


async def claim_out_of_turn(db: Database, task_id: int) -> ClaimedTask | None:
    """Claim this task if it is due and unclaimed, although it may be the turn of another one in its lane."""
    due = and_(Task.id == task_id, Task.due_at <= func.now() + tasks.CLOCK_SLACK, tasks.is_unclaimed())
    claimed = await tasks._claim(db, due, 30.0)
    return claimed[0] if claimed else None


async def run_now(context: Context, task_id: int) -> None:
    """Run this task if it is due and unclaimed."""
    task = await claim_out_of_turn(context.db, task_id)
    if task is not None:
        await run_claimed(context, task)


async def is_waiting_for_a_lock(context: Context) -> None:
    """Wait until some transaction waits for a lock on a call."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM calls%'"
    while True:
        async with context.db.statement() as connection:
            if (await connection.execute(text(waiting))).scalar_one():
                return
        await asyncio.sleep(0.01)


MakeCallRunner = Callable[..., Coroutine[Any, Any, CallRunner]]


def ended(status: CallStatus = CallStatus.COMPLETED, *, recording: bool = True) -> Snapshot:
    now = datetime.now(UTC)
    return Snapshot(
        (
            CallEvent("answered", CallStatus.IN_PROGRESS, now),
            CallEvent("ended", status, now, has_recording=recording),
        )
    )


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.02)


async def completed(runner: CallRunner) -> CallRunner:
    """A call that was dialed, talked, and ended with a recording."""
    runner.provider.snapshot = ended()
    await runner.run("dial")
    await runner.run("track")
    assert await runner.open_tasks() == ["fetch_recording"]
    return runner
