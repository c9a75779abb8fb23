"""Helpers for tests of call reports."""

from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import func, select, update

from app.db import Database
from app.engine_models import Task
from app.models import Call, Delivery, TranscriptRow
from tests.envelopes import data_of
from tests.integration.call_runner import run_now
from worker.context import Context

LOG = "/api/calls/call-log"
PROVIDER = {"X-Greeter-Username": "greeter", "X-Greeter-Password": "a provider's"}


async def report(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"customer_number": "919999999999", **fields}
    return data_of(await client.post(LOG, json=body, headers=PROVIDER), "Call log stored")


async def row(db: Database, call_id: str) -> Call:
    async with db.transaction() as session:
        return await session.get_one(Call, call_id)


async def list_delivery_events(db: Database, call_id: str) -> list[str]:
    async with db.transaction() as session:
        return list(await session.scalars(select(Delivery.event).filter_by(call_id=call_id).order_by(Delivery.id)))


async def transcript(db: Database, call_id: str) -> TranscriptRow:
    async with db.transaction() as session:
        return (await session.scalars(select(TranscriptRow).filter_by(call_id=call_id))).one()


async def run(context: Context, call_id: str, kind: str) -> None:
    async with context.db.transaction() as session:
        due = update(Task).where(Task.call_id == call_id, Task.kind == kind)
        task_id = await session.scalar(due.values(due_at=func.now() - timedelta(seconds=1)).returning(Task.id))
    assert task_id is not None, f"there is no {kind} task"
    await run_now(context, task_id)
