"""The statement that creates calls, and its batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Compiled, Database, is_unreachable

_MOST_CALLS = 50
"""Of one statement."""
_PATIENCE_SECONDS = 0.1
"""How long calls wait for a statement before theirs. Few take a tenth of that."""


@dataclass(frozen=True, slots=True)
class CallInsert:
    """A call that is to be stored, with the login that orders it. Numbers are digits, as in `app.models.Call`."""

    session_id: UUID
    user_id: str
    call_id: str
    customer_number: str
    agent_number: str
    did: str | None
    did_id: str | None
    callback_url: str | None
    language: str | None
    record: bool
    waits_for_hours: bool
    dial_after: datetime | None
    traceparent: str | None
    provider: str
    transcript_id: str
    transcript_status: str


@dataclass(frozen=True, slots=True)
class InsertedCall:
    """What became of a call whose login is valid."""

    is_active: bool
    """Whether the user may order calls. If not, nothing was stored."""
    is_listed: bool
    """The number is on the do-not-call list, and nothing was stored."""
    task_id: int | None
    """Of the dial task. None: nothing was stored, here because the provider takes no new calls."""


_Result = asyncio.Future[InsertedCall | None]

_COLUMNS = [field.name for field in fields(CallInsert)]

# One statement and one round trip: check the logins, create the calls, their first events, their transcripts and their
# dial tasks. A call whose login has ended has no row in the answer.
_INSERT = text("""
WITH ordered AS MATERIALIZED (
    SELECT sent.*, users.is_active, EXISTS (
        SELECT FROM do_not_call
        WHERE number = sent.customer_number AND (do_not_call.user_id IS NULL OR do_not_call.user_id = sent.user_id)
    ) AS is_listed
    FROM unnest(
        CAST(:session_id AS uuid[]), CAST(:user_id AS text[]), CAST(:call_id AS text[]),
        CAST(:customer_number AS text[]), CAST(:agent_number AS text[]), CAST(:did AS text[]), CAST(:did_id AS text[]),
        CAST(:callback_url AS text[]), CAST(:language AS text[]), CAST(:record AS boolean[]),
        CAST(:waits_for_hours AS boolean[]), CAST(:dial_after AS timestamptz[]), CAST(:traceparent AS text[]),
        CAST(:provider AS text[]), CAST(:transcript_id AS text[]), CAST(:transcript_status AS text[])
    ) AS sent (
        session_id, user_id, call_id, customer_number, agent_number, did, did_id, callback_url, language, record,
        waits_for_hours, dial_after, traceparent, provider, transcript_id, transcript_status
    )
    JOIN login_sessions ON login_sessions.id = sent.session_id AND login_sessions.user_id = sent.user_id
    JOIN users ON users.id = sent.user_id
    WHERE login_sessions.expires_at > now() AND (login_sessions.revoked_at IS NULL OR NOT users.is_active)
), call AS (
    INSERT INTO calls (id, user_id, customer_number, agent_number, did, did_id, callback_url, language, record,
                       waits_for_hours, dial_after, traceparent, provider)
    SELECT call_id, user_id, customer_number, agent_number, did, did_id, callback_url, language, record,
           waits_for_hours, dial_after, traceparent, provider
    FROM ordered JOIN providers ON providers.name = ordered.provider
    WHERE is_active AND NOT is_listed AND providers.drained_at IS NULL
    RETURNING id, user_id, provider, dial_after
), event AS (
    INSERT INTO call_events (call_id, key, status, happened_at) SELECT id, 'queued', 'queued', now() FROM call
), transcript AS (
    INSERT INTO transcripts (id, call_id, user_id, status)
    SELECT transcript_id, call.id, call.user_id, transcript_status FROM call JOIN ordered ON call_id = call.id
), task AS (
    INSERT INTO tasks (kind, queue, call_id, user_id, lane, due_at)
    SELECT 'dial', 'calls', id, user_id, 'dial:' || provider, coalesce(dial_after, now()) FROM call
    RETURNING id, call_id
)
SELECT ordered.call_id, is_active, is_listed, task.id AS task_id FROM ordered LEFT JOIN task USING (call_id)
""")
_COMPILED = Compiled(_INSERT)


class CallInserter:
    """Inserts calls for one process. Calls that come while a statement runs go together in the next one, because a
    statement and its commit cost little more for ten calls than for one (docs/benchmarks.md)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: list[tuple[CallInsert, _Result]] = []
        self._running: asyncio.Task[None] | None = None
        self._stuck: set[asyncio.Task[None]] = set()
        """Statements that only their own calls still wait for."""

    async def insert(self, call: CallInsert) -> InsertedCall | None:
        """Insert the call, and commit that. None: its login has ended.

        Raises what `Database.fetch_all` raises.
        """
        result: _Result = asyncio.get_running_loop().create_future()
        self._waiting.append((call, result))
        if self._running is None:
            self._start()
        return await result

    def _start(self) -> None:
        batch, self._waiting = self._waiting[:_MOST_CALLS], self._waiting[_MOST_CALLS:]
        running = self._running = asyncio.create_task(self._run(batch))
        running.add_done_callback(self._go_on)
        asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._go_on, running)

    def _go_on(self, before: "asyncio.Task[None]") -> None:
        """Start what has come since `before` was started. It has ended, or waits for a lock."""
        if before.done():
            self._stuck.discard(before)
        else:
            self._stuck.add(before)
        if self._running is before:
            self._running = None
            if self._waiting:
                self._start()

    async def _run(self, batch: "list[tuple[CallInsert, _Result]]") -> None:
        try:
            rows = await self._db.fetch_all(_COMPILED, _arrays([call for call, _ in batch]))
        except Exception as error:
            if len(batch) > 1 and not is_unreachable(error):
                # PostgreSQL refuses one of them, and has inserted none. The others must not suffer from it.
                await asyncio.gather(*(self._run([one]) for one in batch))
                return
            for _, result in batch:
                if not result.done():  # done: whoever asked has been canceled
                    result.set_exception(error)
            return
        inserted = {row["call_id"]: InsertedCall(row["is_active"], row["is_listed"], row["task_id"]) for row in rows}
        for call, result in batch:
            if not result.done():
                result.set_result(inserted.get(call.call_id))


async def insert_in(session: AsyncSession, call: CallInsert) -> InsertedCall | None:
    """As `CallInserter.insert`, in the session's transaction."""
    row = (await session.execute(_INSERT, _arrays([call]))).one_or_none()
    return None if row is None else InsertedCall(row.is_active, row.is_listed, row.task_id)


def _arrays(calls: Sequence[CallInsert]) -> dict[str, list[Any]]:
    return {name: [getattr(call, name) for call in calls] for name in _COLUMNS}
