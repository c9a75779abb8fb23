"""How a day goes: calls, answers, waits, talk and outcomes, of one user or of all."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Call, TranscriptRow


@dataclass(frozen=True, slots=True)
class HourFigures:
    """The calls that were ordered in one hour of the day."""

    hour: int
    calls: int
    answered: int


@dataclass(frozen=True, slots=True)
class DayFigures:
    """The calls that were ordered on one day. Times are seconds."""

    calls: int
    live: int
    answered: int
    median_wait: float | None
    """From the order until the first telephone rang. None: none rang."""
    talk: float
    hours: tuple[HourFigures, ...]
    outcomes: dict[str, int]
    """Most frequent first."""

    @property
    def ended(self) -> int:
        return self.calls - self.live

    @property
    def answered_share(self) -> float | None:
        """Of the calls that ended."""
        return self.answered / self.ended if self.ended else None


async def read_day(
    session: AsyncSession, user_id: str | None, *, from_instant: datetime, before_instant: datetime, zone: str
) -> DayFigures:
    """The figures of the calls that were ordered between these instants. `zone` names the time zone of the hours."""
    await session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    chosen = [Call.created_at >= from_instant, Call.created_at < before_instant]
    transcribed = [TranscriptRow.created_at >= from_instant, TranscriptRow.created_at < before_instant]
    if user_id is not None:
        chosen.append(Call.user_id == user_id)
        transcribed.append(TranscriptRow.user_id == user_id)
    answered = func.count(case((Call.answered_at.is_not(None) & Call.ended_at.is_not(None), 1)))
    wait = func.extract("epoch", Call.rang_at - Call.created_at)
    talk = func.coalesce(Call.reported_talk_seconds, func.extract("epoch", Call.ended_at - Call.answered_at))
    whole = (
        await session.execute(
            select(
                func.count().label("calls"),
                func.count(case((Call.ended_at.is_(None), 1))).label("live"),
                answered.label("answered"),
                func.percentile_cont(0.5).within_group(wait).label("median_wait"),
                func.coalesce(func.sum(talk), 0).label("talk"),
            ).where(*chosen)
        )
    ).one()
    hour = func.extract("hour", func.timezone(zone, Call.created_at)).label("hour")
    hours = await session.execute(
        select(hour, func.count().label("calls"), answered.label("answered")).where(*chosen).group_by(hour)
    )
    counted = func.count().label("counted")
    outcomes = await session.execute(
        select(TranscriptRow.outcome, counted)
        .where(*transcribed, TranscriptRow.outcome.is_not(None))
        .group_by(TranscriptRow.outcome)
        .order_by(counted.desc(), TranscriptRow.outcome)
    )
    return DayFigures(
        calls=whole.calls,
        live=whole.live,
        answered=whole.answered,
        median_wait=None if whole.median_wait is None else max(0.0, float(whole.median_wait)),
        talk=float(whole.talk),
        hours=tuple(HourFigures(int(row.hour), row.calls, row.answered) for row in sorted(hours, key=lambda r: r.hour)),
        outcomes={str(row.outcome): row.counted for row in outcomes},
    )
