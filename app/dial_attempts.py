"""Dial attempts: each leg of a call is dialed at most once.

An attempt is a column of the call. It is set once, and committed *before* the request to the provider leaves. A worker
that finds it set never dials. It asks the provider what became of the request instead. Only the worker that holds the
attempt can return the call to the queue, and only when the provider has certainly dialed nobody.
"""

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from app import calls, tasks
from app.calls import DialedCall
from app.engine_models import Task, TaskKind
from app.numbers import PhoneNumber, stored_callee
from app.security import ProviderLinks
from app.settings import Settings
from app.telephony.base import Accepted, CallOrder


@dataclass(frozen=True, slots=True)
class DialAttempt:
    """The only attempt to dial this call. Its holder may send one request."""

    order: CallOrder
    token: UUID
    call_age_seconds: float


async def claim_dial(
    session: AsyncSession, call_id: str, settings: Settings, links: ProviderLinks, *, track_after: float
) -> DialAttempt | None:
    """Claim the call's only dial attempt. Commit *before* the request leaves.

    None: somebody else dialed or canceled the call, so do not dial. The same commit adds a `track` task, which brings
    the call to an end even if this process dies.
    """
    token = uuid4()
    dialed = await calls.start_dialing(session, call_id, token, answer_timeout_seconds=settings.answer_timeout_seconds)
    if dialed is None:
        return None
    await tasks.add(session, TaskKind.TRACK, call_id, delay=track_after)
    return DialAttempt(order_of(call_id, dialed, settings, links), token, dialed.age_seconds)


async def save_reference(session: AsyncSession, attempt: DialAttempt, accepted: Accepted) -> bool:
    """Save the provider's reference of the call. False: the call has ended meanwhile, so the provider must end it."""
    return await calls.save_reference(session, attempt.order.call_id, attempt.token, accepted.reference)


async def return_to_queue(session: AsyncSession, attempt: DialAttempt, reason: str, *, again_after: float) -> bool:
    """Queue the call again, to be dialed in `again_after` seconds. The provider has certainly dialed nobody.

    False if the attempt no longer counts, as after a cancellation.
    """
    call_id = attempt.order.call_id
    if not await calls.return_to_queue(session, call_id, attempt.token, reason=reason):
        return False
    await session.execute(delete(Task).filter_by(call_id=call_id, kind=TaskKind.TRACK))
    await tasks.add(session, TaskKind.DIAL, call_id, delay=again_after)
    return True


async def claim_connect(
    session: AsyncSession, call_id: str, settings: Settings, links: ProviderLinks
) -> CallOrder | None:
    """Claim the only attempt to dial the customer, for an agent who waits.

    Commit before the request leaves. None: do not dial.
    """
    dialed = await calls.start_connecting(session, call_id, answer_timeout_seconds=settings.answer_timeout_seconds)
    return None if dialed is None else order_of(call_id, dialed, settings, links)


def order_of(call_id: str, dialed: DialedCall, settings: Settings, links: ProviderLinks) -> CallOrder:
    """What the call's provider is asked to dial."""
    shown = dialed.did or settings.caller_id
    url = links.make(dialed.provider, call_id)
    return CallOrder(
        call_id,
        PhoneNumber(dialed.customer_number),
        stored_callee(dialed.agent_number),
        caller_id=None if shown is None else PhoneNumber(shown),
        agent_ring_seconds=settings.agent_ring_seconds,
        customer_ring_seconds=settings.customer_ring_seconds,
        max_call_seconds=settings.max_call_seconds,
        record=dialed.record,
        notify_url=url,
        instructions_url=url and f"{url}/instructions",
    )
