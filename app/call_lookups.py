"""What workers look up about a call: to ask its provider, to fetch its recording, to transcribe it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, exists, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_state, tasks
from app.call_state import HANGING_UP
from app.engine_models import TaskKind
from app.models import Call, CallEventRow, User
from app.numbers import PhoneNumber, stored_callee
from app.telephony.base import CUSTOMER_DIALED, CallRef, CallStatus, Talk


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that was dialed and has not ended."""

    ref: CallRef
    status: CallStatus
    dialed_at: datetime
    customer_dialed_at: datetime | None
    expires_at: datetime
    being_hung_up: bool
    """The provider was asked to end the call, and has not reported the end yet."""
    only_reported: bool
    """Another system has the call, and our provider does not know it."""
    now: datetime
    """By the database's clock, which also set the other times."""


async def find_live(session: AsyncSession, call_id: str) -> LiveCall | None:
    """The call. None if it was not dialed, or has ended."""
    being_hung_up = exists().where(CallEventRow.call_id == Call.id, CallEventRow.key == HANGING_UP)
    row = (
        await session.execute(
            select(
                *_REF_COLUMNS,
                Call.status,
                Call.customer_dialed_at,
                Call.expires_at,
                being_hung_up.label("being_hung_up"),
                Call.only_reported,
                func.now().label("now"),
            ).where(Call.id == call_id)
        )
    ).one_or_none()
    if row is None or row.dialed_at is None or CallStatus(row.status) in call_state.TERMINAL:
        return None
    return LiveCall(
        await _ref(session, row),
        CallStatus(row.status),
        row.dialed_at,
        row.customer_dialed_at,
        row.expires_at,
        row.being_hung_up,
        row.only_reported,
        row.now,
    )


async def get_ref(session: AsyncSession, call_id: str) -> CallRef:
    """The call's identity at its provider."""
    return await _ref(session, (await session.execute(select(*_REF_COLUMNS).where(Call.id == call_id))).one())


_REF_COLUMNS = (
    Call.id,
    Call.provider,
    Call.provider_reference,
    Call.customer_number,
    Call.agent_number,
    Call.did,
    Call.dialed_at,
)


async def _ref(session: AsyncSession, row: Any) -> CallRef:
    return CallRef(
        row.id,
        row.provider_reference,
        customer_number=PhoneNumber(row.customer_number),
        agent_number=None if row.agent_number is None else stored_callee(row.agent_number),
        caller_id=None if row.did is None else PhoneNumber(row.did),
        dialed_at=row.dialed_at,
        taken=frozenset() if row.provider_reference else await _read_taken(session, row),
    )


async def _read_taken(session: AsyncSession, row: Any) -> frozenset[str]:
    """References of the provider's other calls to this customer, of the hour before the call was dialed and since."""
    if row.dialed_at is None:
        return frozenset()
    since = row.dialed_at - timedelta(hours=1)
    # By user, because the index of calls is by user. Only a call whose answer was lost comes here.
    of_user = (
        select(Call.provider_reference)
        .where(
            Call.user_id == User.id,
            Call.created_at > since,
            Call.customer_number == row.customer_number,
            Call.provider == row.provider,
            Call.provider_reference.is_not(None),
        )
        .lateral()
    )
    return frozenset(
        await session.scalars(select(of_user.c.provider_reference).select_from(User).join(of_user, true()))
    )


@dataclass(frozen=True, slots=True)
class HangupState:
    """What a provider may still hold of a call."""

    ref: CallRef
    ended: bool
    fetch_pending: bool
    """The recording is still to be fetched."""
    unconfirmed_seconds: float | None
    """Since a leg was dialed for which the provider's answer is unknown. None: every answer is known."""


async def get_hangup_state(session: AsyncSession, call_id: str) -> HangupState:
    """What there is to end and to delete at the provider."""
    fetch_pending = tasks.is_pending(TaskKind.FETCH_RECORDING)
    unconfirmed = func.coalesce(Call.customer_dialed_at, case((Call.provider_reference.is_(None), Call.dialed_at)))
    seconds = func.extract("epoch", func.now() - unconfirmed)
    row = (
        await session.execute(
            select(
                *_REF_COLUMNS,
                Call.ended_at,
                fetch_pending.label("fetch_pending"),
                seconds.label("unconfirmed_seconds"),
            ).where(Call.id == call_id)
        )
    ).one()
    return HangupState(
        await _ref(session, row),
        row.ended_at is not None,
        row.fetch_pending,
        None if row.unconfirmed_seconds is None else float(row.unconfirmed_seconds),
    )


async def find_talk(session: AsyncSession, call_id: str) -> Talk | None:
    """When the two people talked. None if the exact time is unknown, as when the answer was noticed late."""
    events = select(CallEventRow.happened_at).filter_by(call_id=call_id)
    dialed = await session.scalar(events.filter_by(key=CUSTOMER_DIALED))
    in_progress = events.filter_by(status=CallStatus.IN_PROGRESS, late=False)
    answered = await session.scalar(in_progress.where(CallEventRow.key != HANGING_UP))
    ended = await session.scalar(select(Call.ended_at).where(Call.id == call_id))
    if dialed is None or answered is None or ended is None:
        return None
    return Talk((answered - dialed).total_seconds(), (ended - answered).total_seconds())


async def find_recording_url(session: AsyncSession, call_id: str) -> str | None:
    """The URL of the recording, if a report named one."""
    return await session.scalar(select(Call.recording_url).where(Call.id == call_id))


async def find_language(session: AsyncSession, call_id: str) -> str | None:
    """The language that the client asked for."""
    return await session.scalar(select(Call.language).where(Call.id == call_id))
