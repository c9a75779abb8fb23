"""How much was used of each limit, counted exactly.

A create that is limited locks what it counts by: the installation's rules first, then the user. So 100 creates at once
at a limit of 10 make 10 calls. Calls are counted from the calls themselves. How long they talked is added up when
they end.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, delete, func, literal, null, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.call_rules import LIMITS, AppliedRules, CallLimits
from app.errors import LimitReached
from app.models import Call, User
from app.rule_models import CallRulesRow, TalkUsage

_QUARTER = 15 * 60
_AGAIN_SECONDS = 10
"""When a client may try again, if as many calls are up as may be."""
_LONGEST_WAIT_SECONDS = 86400
_EVERYTHING = CallLimits(*[2**31 - 1] * len(LIMITS))
"""Limits that nobody reaches, to count everything."""
_WORDS = {
    "calls_at_once": "{limit} calls at once",
    "calls_per_minute": "{limit} calls a minute",
    "calls_per_day": "{limit} calls a day",
    "talk_minutes_per_day": "{limit} minutes of talk a day",
    "talk_minutes_per_month": "{limit} minutes of talk a month",
}


@dataclass(frozen=True, slots=True)
class _Used:
    """What is used of the limits at a moment. `day_began` is in the time zone of the limits."""

    now: datetime
    day_began: datetime
    calls_at_once: int
    calls_per_minute: int
    oldest_of_minute: datetime | None
    calls_per_day: int
    talk_minutes_per_day: float
    talk_minutes_per_month: float


async def check(session: AsyncSession, user_id: str, rules: AppliedRules, zone: ZoneInfo) -> None:
    """Check that one more call is within the limits, and lock them until the transaction ends. Raises
    `LimitReached`."""
    if rules.installation.limits.are_set:
        await session.execute(select(CallRulesRow.id).where(CallRulesRow.user_id.is_(None)).with_for_update())
        await _check(session, None, rules.installation.limits, zone)
    if rules.user.limits.are_set:
        await session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
        await _check(session, user_id, rules.user.limits, zone)


async def measure(session: AsyncSession, user_id: str | None, zone: ZoneInfo) -> CallLimits:
    """What is used now of each limit, by the user or by all."""
    used = await _read(session, user_id, _EVERYTHING, zone)
    return CallLimits(
        calls_at_once=used.calls_at_once,
        calls_per_minute=used.calls_per_minute,
        calls_per_day=used.calls_per_day,
        talk_minutes_per_day=math.ceil(used.talk_minutes_per_day),
        talk_minutes_per_month=math.ceil(used.talk_minutes_per_month),
    )


async def add_talk(session: AsyncSession, user_id: str, ended_at: datetime, seconds: float) -> None:
    """Count the talk of a call that has ended."""
    began_at = datetime.fromtimestamp(ended_at.timestamp() // _QUARTER * _QUARTER, UTC)
    adding = insert(TalkUsage).values(user_id=user_id, began_at=began_at, seconds=math.ceil(seconds))
    total = TalkUsage.seconds + adding.excluded.seconds
    await session.execute(adding.on_conflict_do_update(index_elements=["user_id", "began_at"], set_={"seconds": total}))


async def delete_old(session: AsyncSession) -> None:
    """Delete what counts for no limit any more. The longest is a month, in any time zone."""
    await session.execute(delete(TalkUsage).where(TalkUsage.began_at < func.now() - timedelta(days=40)))


async def _check(session: AsyncSession, user_id: str | None, limits: CallLimits, zone: ZoneInfo) -> None:
    used = await _read(session, user_id, limits, zone)
    day_ends = (used.day_began + timedelta(days=1) - used.now).total_seconds()
    minute_ends = 60.0 if used.oldest_of_minute is None else 60 - (used.now - used.oldest_of_minute).total_seconds()
    for name, again_after in (
        ("calls_at_once", _AGAIN_SECONDS),
        ("calls_per_minute", minute_ends),
        ("calls_per_day", day_ends),
        ("talk_minutes_per_day", day_ends),
        ("talk_minutes_per_month", day_ends),
    ):
        limit = getattr(limits, name)
        if limit is not None and getattr(used, name) >= limit:
            raise _reached(user_id, limits, name, again_after)


def _reached(user_id: str | None, limits: CallLimits, name: str, again_after: float) -> LimitReached:
    limit = _WORDS[name].format(limit=getattr(limits, name))
    whose = "This server allows" if user_id is None else "Your account may have"
    again = max(1, min(math.ceil(again_after), _LONGEST_WAIT_SECONDS))
    scope = "installation" if user_id is None else "user"
    return LimitReached(f"{whose} at most {limit}. Try again later", rule=f"{scope} {name}", retry_after=again)


async def _read(session: AsyncSession, user_id: str | None, limits: CallLimits, zone: ZoneInfo) -> _Used:
    """What is used of the limits that are set, in one statement. Of the others it is zero.

    Its time is the statement's own, because the transaction may have waited for a lock.
    """
    now = func.clock_timestamp()
    day = func.date_trunc("day", now, zone.key)
    month = func.date_trunc("month", now, zone.key)
    minute_ago = now - timedelta(minutes=1)
    of_minute = _newest_since(user_id, minute_ago, limits.calls_per_minute)
    of_day = _newest_since(user_id, day, limits.calls_per_day)
    live = and_(Call.ended_at.is_(None), ~Call.only_reported, _is_of(user_id))
    columns: dict[str, tuple[int | None, Any]] = {
        "calls_at_once": (limits.calls_at_once, select(func.count()).select_from(Call).where(live)),
        "calls_per_minute": (limits.calls_per_minute, select(func.count()).select_from(of_minute)),
        "oldest_of_minute": (limits.calls_per_minute, select(func.min(of_minute.c.created_at))),
        "calls_per_day": (limits.calls_per_day, select(func.count()).select_from(of_day)),
        "talk_minutes_per_day": (limits.talk_minutes_per_day, _talked_minutes(user_id, day)),
        "talk_minutes_per_month": (limits.talk_minutes_per_month, _talked_minutes(user_id, month)),
    }
    nothing = {"oldest_of_minute": null()}
    chosen = [
        (nothing.get(name, literal(0)) if limit is None else query.scalar_subquery()).label(name)
        for name, (limit, query) in columns.items()
    ]
    return _Used(*(await session.execute(select(now.label("now"), day.label("day_began"), *chosen))).one())


def _newest_since(user_id: str | None, since: Any, limit: int | None) -> Any:
    """The calls that were created since then, at most `limit`, as a table of `created_at`."""
    # The index of calls is by user. So calls of all users are found user by user.
    of_user = (
        select(Call.created_at)
        .where(Call.user_id == User.id, Call.created_at > since, ~Call.only_reported)
        .order_by(Call.created_at.desc())
        .limit(limit)
        .lateral()
    )
    users = select(of_user.c.created_at).select_from(User).join(of_user, true())
    if user_id is not None:
        users = users.where(User.id == user_id)
    return users.order_by(of_user.c.created_at.desc()).limit(limit).subquery()


def _talked_minutes(user_id: str | None, since: Any) -> Any:
    """Minutes that calls talked since then, also those that still talk."""
    ended = select(func.coalesce(func.sum(TalkUsage.seconds), 0)).where(TalkUsage.began_at >= since)
    live = select(func.coalesce(func.sum(func.extract("epoch", func.now() - Call.answered_at)), 0)).where(
        Call.ended_at.is_(None), Call.answered_at.is_not(None), ~Call.only_reported, _is_of(user_id)
    )
    if user_id is not None:
        ended = ended.where(TalkUsage.user_id == user_id)
    return select((ended.scalar_subquery() + live.scalar_subquery()) / 60.0)


def _is_of(user_id: str | None) -> ColumnElement[bool]:
    return true() if user_id is None else Call.user_id == user_id
