"""The rights to dial: each leg of a call may be dialled once.

A right is a column, set once and committed *before* the request leaves. Whoever finds it set never dials: what became
of that request is asked, not repeated. It is given back only by its holder, and only when surely nothing was dialled.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import tasks
from app.models import Call, CallEventRow, Task, TaskKind
from app.numbers import PhoneNumber, stored_callee
from app.settings import Settings
from app.telephony.base import Accepted, CallOrder, CallStatus, Leg

_DIALING = "dialing"


@dataclass(frozen=True, slots=True)
class DialAttempt:
    """The one right to dial this call. Whoever holds it may let one request leave."""

    order: CallOrder
    token: UUID
    ordered_seconds_ago: float


async def claim_dial(
    session: AsyncSession, call_id: str, settings: Settings, *, track_after: float
) -> DialAttempt | None:
    """Spend the call's only right to dial. To be committed *before* the request leaves.

    None: somebody dialled, or canceled, before; never dial then. From the same commit on a `track` task watches the
    call, so that it comes to an end even if this process does.
    """
    token = uuid4()
    spending = (
        update(Call)
        .where(Call.id == call_id, Call.status == CallStatus.QUEUED, Call.dial_token.is_(None))
        .values(
            status=CallStatus.DIALING,
            dial_token=token,
            dialed_at=func.now(),
            expires_at=func.now() + timedelta(seconds=settings.answer_timeout_seconds),
        )
        .returning(
            Call.customer_number,
            Call.agent_number,
            Call.did,
            func.extract("epoch", func.now() - Call.created_at).label("age"),
        )
    )
    row = (await session.execute(spending)).one_or_none()
    if row is None:
        return None
    session.add(CallEventRow(call_id=call_id, key=_DIALING, status=CallStatus.DIALING, happened_at=datetime.now(UTC)))
    await tasks.add(session, TaskKind.TRACK, call_id, delay=track_after)
    order = _order(call_id, row.customer_number, row.agent_number, row.did, settings)
    return DialAttempt(order, token, float(row.age))


async def save_reference(session: AsyncSession, right: DialAttempt, accepted: Accepted) -> bool:
    """Remember the provider's name for the call. Only the holder of the right can. False: the call was ended
    meanwhile, and the provider is not to go on with it."""
    saving = (
        update(Call)
        .where(Call.id == right.order.call_id, Call.dial_token == right.token)
        .values(provider_reference=accepted.reference)
        .returning(Call.ended_at)
    )
    row = (await session.execute(saving)).one_or_none()
    return row is not None and row.ended_at is None


async def return_to_queue(session: AsyncSession, right: DialAttempt, reason: str, *, again_after: float) -> bool:
    """Surely nothing was dialled: the call waits in the queue again. False if the right is no longer ours to give."""
    call_id = right.order.call_id
    returning = (
        update(Call)
        .where(Call.id == call_id, Call.dial_token == right.token, Call.status == CallStatus.DIALING)
        .values(status=CallStatus.QUEUED, dial_token=None, dialed_at=None, expires_at=None)
        .returning(Call.id)
    )
    if await session.scalar(returning) is None:
        return False
    await session.execute(delete(CallEventRow).filter_by(call_id=call_id, key=_DIALING))
    await session.execute(
        insert(CallEventRow)
        .values(call_id=call_id, key="waiting", status=CallStatus.QUEUED, detail=reason, happened_at=func.now())
        .on_conflict_do_nothing()
    )
    await session.execute(delete(Task).filter_by(call_id=call_id, kind=TaskKind.TRACK))
    await tasks.add(session, TaskKind.DIAL, call_id, delay=again_after)
    return True


async def claim_connect(session: AsyncSession, call_id: str, settings: Settings) -> CallOrder | None:
    """Spend the only right to dial the customer, whose agent waits. As above: commit, then dial; None: never dial."""
    spending = (
        update(Call)
        .where(Call.id == call_id, Call.status == CallStatus.RINGING, Call.customer_dialed_at.is_(None))
        .values(
            customer_dialed_at=func.now(),
            expires_at=func.now() + timedelta(seconds=settings.answer_timeout_seconds),
        )
        .returning(Call.customer_number, Call.agent_number, Call.did)
    )
    row = (await session.execute(spending)).one_or_none()
    if row is None:
        return None
    session.add(
        CallEventRow(
            call_id=call_id,
            key="connecting",
            status=CallStatus.RINGING,
            leg=Leg.CUSTOMER,
            happened_at=datetime.now(UTC),
        )
    )
    return _order(call_id, row.customer_number, row.agent_number, row.did, settings)


def _order(call_id: str, customer: str, agent: str, did: str | None, settings: Settings) -> CallOrder:
    shown = did or settings.caller_id
    return CallOrder(
        call_id,
        PhoneNumber(customer),
        stored_callee(agent),
        caller_id=None if shown is None else PhoneNumber(shown),
        agent_ring_seconds=settings.agent_ring_seconds,
        customer_ring_seconds=settings.customer_ring_seconds,
        max_call_seconds=settings.max_call_seconds,
    )
