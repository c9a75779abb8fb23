"""Whether a queued call may be dialed now. It is asked right before the dial: much may have changed since the order."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.call_rules import RulesReader
from app.calling_hours import next_opening
from app.models import Call
from app.rule_models import DoNotCall
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus

AFTER_HOURS_KEY = "after_hours"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a call is not dialed now: it ends with this event, or waits for `opens_at`."""

    ends_with: CallEvent | None
    opens_at: datetime | None = None


async def find_obstacle(
    session: AsyncSession, call_id: str, reader: RulesReader, settings: Settings
) -> Obstacle | None:
    """What keeps the call from being dialed now. The caller holds the call's lock."""
    waited = func.extract("epoch", func.now() - func.coalesce(Call.dial_after, Call.created_at))
    listed = exists().where(
        DoNotCall.number == Call.customer_number,
        or_(DoNotCall.user_id.is_(None), DoNotCall.user_id == Call.user_id),
    )
    query = select(Call.user_id, Call.waits_for_hours, waited.label("waited"), listed.label("listed"))
    row = (await session.execute(query.where(Call.id == call_id))).one()
    if row.listed:
        return Obstacle(_end("do_not_call", CallStatus.FAILED, "The customer's number is on the do-not-call list"))
    if row.waited > settings.queue_seconds:
        detail = f"It could not be dialed within {settings.queue_seconds:.0f} s (RINGBACK_QUEUE_SECONDS)"
        return Obstacle(_end("too_late", CallStatus.FAILED, detail))
    hours = (await reader.get(row.user_id, session)).hours
    now = datetime.now(UTC)
    opens_at = next_opening(hours, now)
    if opens_at <= now:
        return None
    if row.waits_for_hours:
        return Obstacle(None, opens_at)
    return Obstacle(after_hours(", ".join(map(str, hours))))


def after_hours(hours: str) -> CallEvent:
    """The end of a call that was ordered outside calling hours."""
    return _end(AFTER_HOURS_KEY, CallStatus.AFTER_HOURS, f"Calls are made {hours} only")


def _end(key: str, status: CallStatus, detail: str) -> CallEvent:
    return CallEvent(key, status, datetime.now(UTC), detail=detail)
