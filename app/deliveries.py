"""Callbacks as their users see them: lists, attempts, and sending them again."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, tasks
from app.engine_models import TaskKind
from app.errors import NoSuchDelivery
from app.models import Delivery, DeliveryAttempt, DeliveryStatus, User

_COUNTED = 10_000
"""A status with more deliveries is not counted further, because nobody reads the exact number."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One callback, with the e-mail address of its user."""

    delivery: Delivery
    email: str


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """How many callbacks there are, each at most `_COUNTED`."""

    failed: int
    pending: int


async def list_page(
    session: AsyncSession, user_id: str | None, *, status: DeliveryStatus | None, before: int | None, limit: int
) -> list[DeliveryView]:
    """Callbacks of a user, or of all users, newest first. `before`: only those with a smaller id."""
    query = (
        select(Delivery, User.email).join(User, User.id == Delivery.user_id).order_by(Delivery.id.desc()).limit(limit)
    )
    if user_id is not None:
        query = query.where(Delivery.user_id == user_id)
    if status is not None:
        query = query.where(_is(status))
    if before is not None:
        query = query.where(Delivery.id < before)
    return [DeliveryView(*row) for row in await session.execute(query)]


async def count(session: AsyncSession, user_id: str | None) -> DeliveryCounts:
    """How many have failed, and how many are pending."""

    async def counted(status: DeliveryStatus) -> int:
        query = select(Delivery.id).where(_is(status)).limit(_COUNTED)
        if user_id is not None:
            query = query.where(Delivery.user_id == user_id)
        return await session.scalar(select(func.count()).select_from(query.subquery())) or 0

    return DeliveryCounts(await counted(DeliveryStatus.FAILED), await counted(DeliveryStatus.PENDING))


def _is(status: DeliveryStatus) -> ColumnElement[bool]:
    """The status is a part of the statement, because the indexes of deliveries that were not sent are partial."""
    return Delivery.status == bindparam("status", status.value, literal_execute=True)


async def list_attempts(session: AsyncSession, delivery_ids: Sequence[int]) -> dict[int, list[DeliveryAttempt]]:
    """The attempts of each of these callbacks, oldest first."""
    query = select(DeliveryAttempt).where(DeliveryAttempt.delivery_id.in_(delivery_ids)).order_by(DeliveryAttempt.id)
    found: dict[int, list[DeliveryAttempt]] = {delivery_id: [] for delivery_id in delivery_ids}
    for attempt in await session.scalars(query):
        found[attempt.delivery_id].append(attempt)
    return found


async def get(session: AsyncSession, user_id: str | None, message_id: str) -> Delivery:
    """The callback of this user, or of any user. Raises `NoSuchDelivery`."""
    found = await callbacks.find_delivery(session, message_id)
    if found is None or user_id not in (None, found.user_id):
        raise NoSuchDelivery
    return found


async def replay_failed(session: AsyncSession, user_id: str | None, *, limit: int = 1000) -> int:
    """Send the failed callbacks of a user, or of all users, again, each as the same message, oldest first. Returns how
    many these are, at most `limit`."""
    query = select(Delivery.id, Delivery.call_id).where(Delivery.status == DeliveryStatus.FAILED)
    if user_id is not None:
        query = query.where(Delivery.user_id == user_id)
    rows = (await session.execute(query.order_by(Delivery.id).limit(limit))).all()
    for call_id in sorted(
        {row.call_id for row in rows}
    ):  # in one order, so that two at once do not lock each other out
        await tasks.lock_call(session, call_id)
        await callbacks.reset(session, [row.id for row in rows if row.call_id == call_id])
        await tasks.make_due(session, TaskKind.DELIVER, call_id)
    return len(rows)
