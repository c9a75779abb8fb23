"""Helpers for tests of lanes: calls that wait in one."""

from sqlalchemy import update

from app import accounts
from app.db import Database
from app.engine_models import Task
from app.hints import Hints
from app.models import Call, User
from app.new_calls import NewCall
from app.tasks import dial_lane
from tests.conftest import AGENT, CUSTOMER, creator_of

LEASE = 30.0


async def queue_calls(db: Database, hints: Hints, user: User, provider: str, count: int) -> list[str]:
    """Calls of the user that wait for this provider."""
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    ids = [(await creator_of(db, hints).create(claims, NewCall(CUSTOMER, AGENT))).id for _ in range(count)]
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id.in_(ids)).values(provider=provider))
        await session.execute(update(Task).where(Task.call_id.in_(ids)).values(lane=dial_lane(provider)))
    return ids
