"""Canceling a call, and the truth about what could be canceled."""

from datetime import UTC, datetime
from enum import StrEnum

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_state, calls
from app.errors import Conflict, NoSuchCall
from app.models import Call
from app.provider_directory import ProviderDirectory
from app.telephony.base import CallEvent, CallStatus

log = structlog.get_logger()


class CancelResult(StrEnum):
    """What became of an order to cancel a call."""

    CANCELED = "canceled"
    """Nobody will talk."""
    HANGING_UP = "hanging_up"
    """It is in progress, and its provider is asked to end it. It ends as completed."""
    ENDED_BEFORE = "ended_before"
    """There was nothing to cancel."""


async def cancel(session: AsyncSession, directory: ProviderDirectory, call_id: str) -> CancelResult:
    """Cancel the call, as far as its provider can. Raises `NoSuchCall`, `Conflict` if the provider cannot end the call
    now, and `ProviderError` if it cannot be used."""
    query = select(Call.status, Call.provider, Call.only_reported).where(Call.id == call_id).with_for_update()
    call = (await session.execute(query)).one_or_none()
    if call is None:
        raise NoSuchCall
    status = CallStatus(call.status)
    if status in call_state.TERMINAL:
        return CancelResult.ENDED_BEFORE
    if call.only_reported:
        raise Conflict("Another system has this call, and only that can end it")
    can = await directory.get_capabilities(call.provider, session)
    log.info("cancel", call_id=call_id, status=status)
    if status is CallStatus.IN_PROGRESS:
        if not can.hangup:
            raise Conflict("The telephony provider cannot end a call that is in progress. It goes on")
        await calls.hang_up(session, call_id, "Canceled")
        return CancelResult.HANGING_UP
    if status is not CallStatus.QUEUED and not can.cancel:
        raise Conflict("The telephony provider cannot end a call that it has begun to dial. It goes on")
    canceled = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC), hangup_cause="originator_cancel")
    await calls.apply_events(session, call_id, [canceled], max_call_seconds=0)
    return CancelResult.CANCELED
