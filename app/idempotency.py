"""Keys that make an order count once: a client may send it again, and gets the same call.

A key is a row that the transaction creates which creates the call. Another order with the key waits for it.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict
from app.rule_models import IdempotencyKey

LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a user's client, and what was ordered with it."""

    user_id: str
    key: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class EarlierCall:
    """The call that an earlier order with the key created, and the warning of its answer."""

    call_id: str
    warning: str | None


async def find_call(session: AsyncSession, key: Key, new_call_id: str) -> EarlierCall | None:
    """The call that the key stands for. None: from now on it stands for `new_call_id`, which this transaction creates.

    Raises `Conflict` if the key was sent with another order.
    """
    taking = insert(IdempotencyKey).values(
        user_id=key.user_id, key=key.key, body_sha256=key.body_sha256, call_id=new_call_id
    )
    renewed = {
        "body_sha256": taking.excluded.body_sha256,
        "call_id": taking.excluded.call_id,
        "warning": None,
        "created_at": func.now(),
    }
    taken = taking.on_conflict_do_update(
        index_elements=["user_id", "key"], set_=renewed, where=IdempotencyKey.created_at < func.now() - LIFE
    ).returning(IdempotencyKey.call_id)
    if await session.scalar(taken) is not None:
        return None
    row = (await session.scalars(select(IdempotencyKey).where(*_is(key)))).one()
    if row.body_sha256 != key.body_sha256:
        raise Conflict("This Idempotency-Key was sent with another order. Send a new key with a new order")
    return EarlierCall(row.call_id, row.warning)


async def save_warning(session: AsyncSession, key: Key, warning: str) -> None:
    """Keep the warning, for the answers to later orders with the key."""
    await session.execute(update(IdempotencyKey).where(*_is(key)).values(warning=warning))


async def delete_old(session: AsyncSession) -> None:
    """Delete keys whose life is over."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - LIFE))


def _is(key: Key) -> tuple[ColumnElement[bool], ...]:
    return IdempotencyKey.user_id == key.user_id, IdempotencyKey.key == key.key
