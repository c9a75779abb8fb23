"""Lists of calls for a console: of one user or of all, newest first, filtered, searched, page by page.

`app.call_views.recent` is the list of the API, which counts and has offsets. This one has neither, so that each page
costs the same among a million calls.
"""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, cast, func, literal_column, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_ids, call_state
from app.models import WORDS, Call, CallType, Did, TranscriptRow, TranscriptStatus, User
from app.numbers import part_of_number
from app.telephony.base import CallStatus

SEARCHED_CALLS = 30_000
"""A part of a number is looked for in this many calls, the newest that pass the other filters."""

_WHOLE_NUMBER_DIGITS = 10
_ENDING_DIGITS = 7
_MOST_FOUND = 5000
"""A search finds at most so many calls, the newest."""
_SAMPLE, _FREQUENT_IN_SAMPLE = 200, 4
"""Words that so many of the newest calls have are frequent."""
_DIGITS = re.compile(r"[0-9]{3,15}")
_LONGEST_QUERY = 80
_ROWS_AT_ONCE = 500


class StatusGroup(StrEnum):
    """Statuses that belong together for somebody who looks for calls."""

    LIVE = "live"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    FAILED = "failed"


_GROUPS: dict[StatusGroup, Sequence[CallStatus]] = {
    StatusGroup.ANSWERED: (CallStatus.COMPLETED,),
    StatusGroup.UNANSWERED: (CallStatus.BUSY, CallStatus.NO_ANSWER, CallStatus.CANCELED, CallStatus.AFTER_HOURS),
    StatusGroup.FAILED: (CallStatus.FAILED, CallStatus.TIMED_OUT),
}


@dataclass(frozen=True, slots=True)
class ListFilters:
    """What a list shows. None filters nothing."""

    user_id: str | None = None
    group: StatusGroup | None = None
    outcome: str | None = None
    call_type: CallType | None = None
    transcript_status: TranscriptStatus | None = None
    from_instant: datetime | None = None
    before_instant: datetime | None = None
    query: str = ""
    """A call's id, a number or a part of it, or words that were said."""


@dataclass(frozen=True, slots=True)
class ListedCall:
    """One call in a list."""

    id: str
    user_id: str
    email: str
    status: CallStatus
    call_type: CallType
    customer_number: str
    agent_number: str | None
    did: str | None
    did_label: str | None
    provider: str
    hangup_cause: str | None
    failure: str | None
    created_at: datetime
    dialed_at: datetime | None
    agent_answered_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    reported_talk_seconds: int | None
    transcript_status: TranscriptStatus
    outcome: str | None
    summary: str | None
    first_words: str | None
    """What the customer said first."""

    @property
    def is_live(self) -> bool:
        return self.status not in call_state.TERMINAL

    @property
    def talk_seconds(self) -> int | None:
        """How long the two talked."""
        if self.reported_talk_seconds is not None or self.answered_at is None or self.ended_at is None:
            return self.reported_talk_seconds
        return max(0, int((self.ended_at - self.answered_at).total_seconds()))


_FIRST_WORDS: ColumnElement[str] = literal_column(
    "jsonb_path_query_first(transcripts.history, '$[*] ? (@.role == \"customer\").content') #>> '{}'"
)

_ROW = (
    select(
        Call.id,
        Call.user_id,
        User.email,
        Call.status,
        Call.call_type,
        Call.customer_number,
        Call.agent_number,
        Call.did,
        Did.label.label("did_label"),
        Call.provider,
        Call.hangup_cause,
        Call.failure,
        Call.created_at,
        Call.dialed_at,
        Call.agent_answered_at,
        Call.answered_at,
        Call.ended_at,
        Call.reported_talk_seconds,
        TranscriptRow.status.label("transcript_status"),
        TranscriptRow.outcome,
        TranscriptRow.summary,
        func.left(_FIRST_WORDS, 200).label("first_words"),
    )
    .select_from(Call)
    .join(TranscriptRow, TranscriptRow.call_id == Call.id)
    .join(User, User.id == Call.user_id)
    .outerjoin(Did, Did.id == Call.did_id)
)
_NEWEST = (Call.created_at.desc(), Call.id.desc())


async def list_page(
    session: AsyncSession, filters: ListFilters, *, limit: int, before: str | None = None
) -> tuple[list[ListedCall], str | None]:
    """One page, and the `before` of the next one. `before` is the id of the call above the page."""
    rows = list(await session.execute(await _statement(session, filters, limit=limit + 1, before=before)))
    calls = [_listed(row) for row in rows[:limit]]
    return calls, calls[-1].id if len(rows) > limit else None


async def list_these(session: AsyncSession, call_ids_: Sequence[str]) -> list[ListedCall]:
    """These calls, of any user."""
    return [_listed(row) for row in await session.execute(_ROW.where(Call.id.in_(call_ids_)).order_by(*_NEWEST))]


async def read_all(session: AsyncSession, filters: ListFilters) -> AsyncIterator[ListedCall]:
    """All calls that pass the filters, newest first, without holding them all."""
    statement = await _statement(session, filters, limit=None, before=None)
    async for row in await session.stream(statement.execution_options(yield_per=_ROWS_AT_ONCE)):
        yield _listed(row)


def _listed(row: Any) -> ListedCall:
    values = dict(row._mapping)
    values["status"] = CallStatus(row.status)
    values["call_type"] = CallType(row.call_type)
    values["transcript_status"] = TranscriptStatus(row.transcript_status)
    return ListedCall(**values)


async def _statement(
    session: AsyncSession, filters: ListFilters, *, limit: int | None, before: str | None
) -> Select[*tuple[Any, ...]]:
    # Which index serves a list depends on how rare its statuses and outcomes are, so it is planned with them.
    await session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    chosen = select(Call.id).where(*_conditions(filters))
    if before is not None and call_ids.is_call_id(before):
        above = select(Call.created_at, Call.id).where(Call.id == before)
        position = (await session.execute(above)).one_or_none()
        if position is not None:
            chosen = chosen.where(tuple_(Call.created_at, Call.id) < tuple_(position.created_at, position.id))
    query = filters.query.strip()[:_LONGEST_QUERY].replace("\0", "")
    if query:
        chosen = await _searched(session, chosen, query, filters.user_id, limit)
    found = chosen.order_by(*_NEWEST).limit(limit).subquery()
    return _ROW.join(found, found.c.id == Call.id).order_by(*_NEWEST)


async def _searched(
    session: AsyncSession, chosen: Select[str], query: str, user_id: str | None, limit: int | None
) -> Select[str]:
    """Those of the chosen calls that the query is about, at least the newest `limit`."""
    if call_ids.is_call_id(query):
        return chosen.where(Call.id == query)
    number = part_of_number(query)
    if _DIGITS.fullmatch(number):
        return chosen.where(Call.id.in_(await _with_number(session, chosen, number, user_id)))
    # PostgreSQL cuts the query into words as it did the transcripts, in any script.
    words = func.nullif(cast(func.plainto_tsquery("simple", query), Text), "")
    are_said = literal_column(WORDS).op("@@")(cast(words.concat(":*"), TSQUERY))
    # PostgreSQL cannot know how many calls have these words, and its guess may cost seconds. The newest calls show it.
    said_in_call = select(are_said).where(TranscriptRow.call_id == Call.id).scalar_subquery()
    newest = chosen.add_columns(said_in_call.label("said")).order_by(*_NEWEST).limit(_SAMPLE).subquery()
    count = await session.scalar(select(func.count()).select_from(newest).where(newest.c.said)) or 0
    if count >= _FREQUENT_IN_SAMPLE or await _are_frequent(
        session, are_said
    ):  # read the calls from the newest on, until the page is full
        calls = chosen.add_columns(said_in_call.label("said")).order_by(*_NEWEST).limit(SEARCHED_CALLS).subquery()
        full = select(calls.c.id).where(calls.c.said).limit(limit or _MOST_FOUND)
        return chosen.where(Call.id.in_(list(await session.scalars(full))))
    rare = select(TranscriptRow.call_id, TranscriptRow.created_at).where(are_said, TranscriptRow.history.is_not(None))
    if user_id is not None:
        rare = rare.where(TranscriptRow.user_id == user_id)
    return chosen.where(Call.id.in_(await _newest_ids(session, rare)))


async def _are_frequent(session: AsyncSession, are_said: ColumnElement[bool]) -> bool:
    """Whether too many calls have these words to read them all, although the newest have not. The index ends its search
    there, which would take half a minute among millions."""
    await session.execute(text(f"SET LOCAL gin_fuzzy_search_limit = {2 * _MOST_FOUND}"))
    counting = select(func.count()).select_from(TranscriptRow).where(are_said, TranscriptRow.history.is_not(None))
    found = await session.scalar(counting) or 0
    await session.execute(text("SET LOCAL gin_fuzzy_search_limit = 0"))
    return found > _MOST_FOUND


async def _with_number(session: AsyncSession, chosen: Select[str], number: str, user_id: str | None) -> set[str]:
    """The calls with this number, or this part of a number. A customer is found in all calls by the last digits, others
    in the newest calls only."""
    number = number.lstrip("0") if len(number) >= _WHOLE_NUMBER_DIGITS else number  # with a leading 0, or without
    numbers = (Call.customer_number, Call.agent_number, Call.did)
    newest = chosen.add_columns(*numbers).order_by(*_NEWEST).limit(SEARCHED_CALLS).subquery()
    columns = (newest.c.customer_number, newest.c.agent_number, newest.c.did)
    part = select(newest.c.id).where(or_(*(func.strpos(column, number) > 0 for column in columns)))
    found = set(await session.scalars(part.limit(_MOST_FOUND)))
    if len(number) >= _ENDING_DIGITS:
        ending = select(Call.id.label("call_id"), Call.created_at).where(
            func.reverse(Call.customer_number).like(f"{number[::-1]}%")
        )
        if user_id is not None:
            ending = ending.where(Call.user_id == user_id)
        found |= set(await _newest_ids(session, ending))
    return found


async def _newest_ids(session: AsyncSession, matching: Select[*tuple[Any, ...]]) -> Sequence[str]:
    """The ids of the newest calls that match, found by the index of what is searched."""
    found = matching.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
    query = select(found.c.call_id).order_by(found.c.created_at.desc()).limit(_MOST_FOUND)
    return list(await session.scalars(query))


def _conditions(filters: ListFilters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.user_id is not None:
        found.append(Call.user_id == filters.user_id)
    if filters.group is StatusGroup.LIVE:
        found.append(Call.ended_at.is_(None))
    elif filters.group is not None:
        found.append(Call.status.in_(_GROUPS[filters.group]))
    if filters.from_instant is not None:
        found.append(Call.created_at >= filters.from_instant)
    if filters.before_instant is not None:
        found.append(Call.created_at < filters.before_instant)
    if filters.call_type is not None:
        found.append(Call.call_type == filters.call_type)
    for column, value in (
        (TranscriptRow.outcome, filters.outcome),
        (TranscriptRow.status, filters.transcript_status),
    ):
        if value is not None:
            of_call = and_(TranscriptRow.call_id == Call.id, column == value)
            found.append(select(TranscriptRow.id).where(of_call).exists())
    return found
