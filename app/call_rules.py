"""What may be ordered: limits, destinations, calling hours and recording, of the installation and of each user.

Both sets of rules apply, so a user's rules can only be narrower. `ringback limits` shows and changes them. Nothing is
restricted until it is set, except that a real provider dials the home country only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from cachetools import LRUCache
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import destinations
from app.calling_hours import CallingHours, read_hours
from app.db import Database
from app.errors import ValidationFailed
from app.models import User
from app.rule_models import CallRulesRow
from app.settings import Settings

log = structlog.get_logger()

FRESH_SECONDS = 1.0
"""How old the rules may be that a process applies."""
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How much may be ordered. None: without a limit."""

    calls_at_once: int | None = None
    calls_per_minute: int | None = None
    calls_per_day: int | None = None
    talk_minutes_per_day: int | None = None
    talk_minutes_per_month: int | None = None

    @property
    def are_set(self) -> bool:
        """Whether there is a limit."""
        return any(getattr(self, limit) is not None for limit in LIMITS)


LIMITS = tuple(field.name for field in fields(CallLimits))


@dataclass(frozen=True, slots=True)
class CallRules:
    """The rules of a user, or of the installation. None restricts nothing."""

    limits: CallLimits = CallLimits()
    destinations: tuple[str, ...] | None = None
    hours: CallingHours | None = None
    record: bool = True


@dataclass(frozen=True, slots=True)
class AppliedRules:
    """What applies to the calls of a user."""

    installation: CallRules
    user: CallRules

    @property
    def both(self) -> tuple[CallRules, CallRules]:
        return self.installation, self.user

    @property
    def record(self) -> bool:
        """Whether calls may be recorded."""
        return self.installation.record and self.user.record

    @property
    def hours(self) -> list[CallingHours]:
        """All of these must be open."""
        return [rules.hours for rules in self.both if rules.hours is not None]


class RulesReader:
    """Reads the rules for one process, of each user at most once a second."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._zone = settings.zone
        self._known: LRUCache[str, tuple[float, AppliedRules]] = LRUCache(_REMEMBERED)

    async def get(self, user_id: str, session: AsyncSession | None = None) -> AppliedRules:
        """The rules for calls of this user. Whoever has a `session` passes it on (`ProviderDirectory.configs`)."""
        read_at, rules = self._known.get(user_id, (float("-inf"), None))
        if rules is not None and monotonic() - read_at <= FRESH_SECONDS:
            return rules
        if rules is not None:  # whoever comes while these are read makes do with the old ones
            self._known[user_id] = (monotonic(), rules)
        try:
            if session is not None:
                rules = await get_applied(session, user_id, self._zone)
            else:
                async with self._db.statement() as connection:
                    rules = await get_applied(connection, user_id, self._zone)
        except BaseException:
            self._known.pop(user_id, None)
            raise
        self._known[user_id] = (monotonic(), rules)
        return rules


async def get_applied(connection: AsyncConnection | AsyncSession, user_id: str | None, zone: ZoneInfo) -> AppliedRules:
    """The rules for calls of this user. None: no user has rules of their own."""
    mine = or_(CallRulesRow.user_id.is_(None), CallRulesRow.user_id == user_id)
    rows = await connection.execute(select(CallRulesRow.__table__).where(mine))
    found = {row.user_id: _rules(row, zone) for row in rows}
    user = CallRules() if user_id is None else found.get(user_id, CallRules())
    return AppliedRules(found.get(None, CallRules()), user)


def _rules(row: Any, zone: ZoneInfo) -> CallRules:
    return CallRules(
        CallLimits(**{limit: getattr(row, limit) for limit in LIMITS}),
        None if row.destinations is None else destinations.read_destinations(row.destinations),
        None if row.hours is None else read_hours(row.hours, zone),
        row.record is not False,
    )


async def change(session: AsyncSession, user: User | None, changes: Mapping[str, Any], zone: ZoneInfo) -> None:
    """Change the rules of a user, or of the installation. `changes` has columns of `CallRulesRow`; None removes a
    rule. Raises `ValidationFailed`."""
    values = dict(changes)
    try:
        if values.get("destinations") is not None:
            values["destinations"] = ", ".join(destinations.read_destinations(values["destinations"]))
        if values.get("hours") is not None:
            values["hours"] = read_hours(values["hours"], zone).text
    except ValueError as error:
        raise ValidationFailed(str(error)) from error
    row = (await session.scalars(_row_of(user).with_for_update())).one_or_none()
    if row is None:
        user_id = None if user is None else user.id
        await session.execute(insert(CallRulesRow).values(user_id=user_id).on_conflict_do_nothing())
        row = (await session.scalars(_row_of(user).with_for_update())).one()
    for column, value in values.items():
        setattr(row, column, value)
    log.info("call_rules_changed", user_id=row.user_id, changes=values)


def _row_of(user: User | None) -> Any:
    return select(CallRulesRow).where(
        CallRulesRow.user_id.is_(None) if user is None else CallRulesRow.user_id == user.id
    )
