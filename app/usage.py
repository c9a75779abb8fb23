"""How much was used of each limit, counted exactly.

A create that is limited locks what it counts by: the installation's rules first, then the user. So 100 creates at once
at a limit of 10 make 10 calls. Calls are counted from the calls themselves. How long they talked is added up when
they end.
"""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, func, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.call_rules import AppliedRules, CallLimits
from app.errors import LimitReached
from app.models import Call, User
from app.rule_models import CallRulesRow, TalkUsage

_QUARTER = 15 * 60
_AGAIN_SECONDS = 10
"""When a client may try again, if as many calls are up as may be."""
_LONGEST_WAIT_SECONDS = 86400
_WORDS = {
    "calls_at_once": "{limit} calls at once",
    "calls_per_minute": "{limit} calls a minute",
    "calls_per_day": "{limit} calls a day",
    "talk_minutes_per_day": "{limit} minutes of talk a day",
    "talk_minutes_per_month": "{limit} minutes of talk a month",
}


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
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return CallLimits(
        calls_at_once=await _count_live(session, user_id),
        calls_per_minute=(await _count_created_since(session, user_id, now - timedelta(minutes=1)))[0],
        calls_per_day=(await _count_created_since(session, user_id, _day_began(now, zone)))[0],
        talk_minutes_per_day=math.ceil(await _talked(session, user_id, _day_began(now, zone)) / 60),
        talk_minutes_per_month=math.ceil(await _talked(session, user_id, _month_began(now, zone)) / 60),
    )


async def add_talk(session: AsyncSession, user_id: str, ended_at: datetime, seconds: float) -> None:
    """Count the talk of a call that has ended."""
    began_at = datetime.fromtimestamp(ended_at.timestamp() // _QUARTER * _QUARTER, UTC)
    adding = insert(TalkUsage).values(user_id=user_id, began_at=began_at, seconds=math.ceil(seconds))
    total = TalkUsage.seconds + adding.excluded.seconds
    await session.execute(adding.on_conflict_do_update(index_elements=["user_id", "began_at"], set_={"seconds": total}))


async def _check(session: AsyncSession, user_id: str | None, limits: CallLimits, zone: ZoneInfo) -> None:
    # The statement's own time, because the transaction may have waited for a lock.
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    day, month = _day_began(now, zone), _month_began(now, zone)
    if limits.calls_at_once is not None and await _count_live(session, user_id) >= limits.calls_at_once:
        raise _reached(user_id, limits, "calls_at_once", _AGAIN_SECONDS)
    if limits.calls_per_minute is not None:
        minute_ago = now - timedelta(minutes=1)
        created, oldest = await _count_created_since(session, user_id, minute_ago, limits.calls_per_minute)
        if created >= limits.calls_per_minute:
            left = 60 - (now - oldest).total_seconds() if oldest is not None else 60
            raise _reached(user_id, limits, "calls_per_minute", left)
    if limits.calls_per_day is not None:
        created, _ = await _count_created_since(session, user_id, day, limits.calls_per_day)
        if created >= limits.calls_per_day:
            raise _reached(user_id, limits, "calls_per_day", (day + timedelta(days=1) - now).total_seconds())
    for name, limit, began in (
        ("talk_minutes_per_day", limits.talk_minutes_per_day, day),
        ("talk_minutes_per_month", limits.talk_minutes_per_month, month),
    ):
        if limit is not None and await _talked(session, user_id, began) >= limit * 60:
            raise _reached(user_id, limits, name, (day + timedelta(days=1) - now).total_seconds())


def _reached(user_id: str | None, limits: CallLimits, name: str, again_after: float) -> LimitReached:
    limit = _WORDS[name].format(limit=getattr(limits, name))
    whose = "This server allows" if user_id is None else "Your account may have"
    again = max(1, min(math.ceil(again_after), _LONGEST_WAIT_SECONDS))
    scope = "installation" if user_id is None else "user"
    return LimitReached(f"{whose} at most {limit}. Try again later", rule=f"{scope} {name}", retry_after=again)


async def _count_live(session: AsyncSession, user_id: str | None) -> int:
    live = and_(Call.ended_at.is_(None), ~Call.only_reported, _is_of(user_id))
    return await session.scalar(select(func.count()).where(live)) or 0


async def _count_created_since(
    session: AsyncSession, user_id: str | None, since: datetime, limit: int | None = None
) -> tuple[int, datetime | None]:
    """How many calls were created since then, at most `limit`, and when the oldest of these newest ones was."""
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
    newest = users.order_by(of_user.c.created_at.desc()).limit(limit).subquery()
    row = (await session.execute(select(func.count(), func.min(newest.c.created_at)).select_from(newest))).one()
    return int(row[0]), row[1]


async def _talked(session: AsyncSession, user_id: str | None, since: datetime) -> float:
    """Seconds that calls talked since the beginning of a day, also those that still talk."""
    ended = select(func.sum(TalkUsage.seconds)).where(TalkUsage.began_at >= since)
    live = select(func.sum(func.extract("epoch", func.now() - Call.answered_at))).where(
        Call.ended_at.is_(None), Call.answered_at.is_not(None), ~Call.only_reported, _is_of(user_id)
    )
    if user_id is not None:
        ended = ended.where(TalkUsage.user_id == user_id)
    return float(await session.scalar(ended) or 0) + float(await session.scalar(live) or 0)


def _is_of(user_id: str | None) -> ColumnElement[bool]:
    return true() if user_id is None else Call.user_id == user_id


def _day_began(now: datetime, zone: ZoneInfo) -> datetime:
    return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)


def _month_began(now: datetime, zone: ZoneInfo) -> datetime:
    return _day_began(now, zone).replace(day=1)
