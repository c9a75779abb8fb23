"""A call as its owner sees it, with transcript and recording: one call, or a filtered list."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import call_state, tasks
from app.call_state import REPORT_KEY_PREFIX
from app.db import Database
from app.engine_models import TaskKind
from app.errors import NoSuchCall, NotYourCall
from app.models import Call, CallEventRow, CallType, RecordingRow, TranscriptRow, TranscriptStatus
from app.telephony.base import CallStatus


@dataclass(frozen=True, slots=True)
class CallView:
    """One call. The texts are set when the transcript is ready, and `transcript_failure` when it failed."""

    id: str
    user_id: str
    status: CallStatus
    customer_number: str
    agent_number: str | None
    did: str | None
    call_type: CallType
    callback_url: str | None
    hangup_cause: str | None
    created_at: datetime
    dialed_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    reported_seconds: int | None
    reported_talk_seconds: int | None
    recording_url: str | None
    """The URL of the recording, if a report named one."""
    transcript_id: str
    transcript_status: TranscriptStatus
    transcript_failure: str | None
    transcript_round: int
    summary: str | None
    outcome: str | None
    history: list[dict[str, Any]] | None
    transcript_created_at: datetime
    transcript_updated_at: datetime
    has_recording: bool
    fetch_pending: bool
    """The recording is still to be fetched."""
    fields: dict[str, str | None] | None
    """The user's own fields of the transcript, if there are any."""
    ended_by_report: bool
    """The end is known from a report only. Then `ended_at` is when the report came, and not when the call ended."""

    @property
    def is_unanswered(self) -> bool:
        """Whether it is certain that there was no conversation."""
        failed_by_report = self.status is CallStatus.FAILED and self.ended_by_report
        return self.status in call_state.UNANSWERED or failed_by_report

    @property
    def recording_pending(self) -> bool:
        """Whether a recording may still come."""
        return not self.has_recording and (self.ended_at is None or self.fetch_pending)

    @property
    def seconds(self) -> int | None:
        """From the first dialing to the end."""
        rang = self._between(self.dialed_at, self.answered_at)
        if self.reported_seconds is None and self.reported_talk_seconds is not None and rang is not None:
            return rang + self.reported_talk_seconds
        return self._measured(self.reported_seconds, self.dialed_at)

    @property
    def talk_seconds(self) -> int | None:
        """From the answer to the end."""
        return self._measured(self.reported_talk_seconds, self.answered_at)

    def _measured(self, reported: int | None, start: datetime | None) -> int | None:
        return reported if reported is not None else self._between(start, self.ended_at)

    def _between(self, start: datetime | None, end: datetime | None) -> int | None:
        """The time between two moments that our own clock knows. It does not know the end of a call that only reports
        describe."""
        if self.ended_by_report or start is None or end is None:
            return None
        return max(0, int((end - start).total_seconds()))

    @property
    def updated_at(self) -> datetime:
        """The time of the newest change."""
        return max(filter(None, (self.transcript_updated_at, self.ended_at, self.answered_at, self.dialed_at)))


_VIEW = (
    select(
        Call.id,
        Call.user_id,
        Call.status,
        Call.customer_number,
        Call.agent_number,
        Call.did,
        Call.call_type,
        Call.callback_url,
        Call.hangup_cause,
        Call.created_at,
        Call.dialed_at,
        Call.answered_at,
        Call.ended_at,
        Call.reported_seconds,
        Call.reported_talk_seconds,
        Call.recording_url,
        TranscriptRow.id.label("transcript_id"),
        TranscriptRow.status.label("transcript_status"),
        TranscriptRow.failure.label("transcript_failure"),
        TranscriptRow.round.label("transcript_round"),
        TranscriptRow.summary,
        TranscriptRow.outcome,
        TranscriptRow.history,
        TranscriptRow.fields,
        TranscriptRow.created_at.label("transcript_created_at"),
        TranscriptRow.updated_at.label("transcript_updated_at"),
        RecordingRow.call_id.is_not(None).label("has_recording"),
        tasks.is_pending(TaskKind.FETCH_RECORDING).label("fetch_pending"),
        or_(
            Call.only_reported,
            exists().where(CallEventRow.call_id == Call.id, CallEventRow.key.startswith(REPORT_KEY_PREFIX)),
        ).label("ended_by_report"),
    )
    .select_from(Call)
    .join(TranscriptRow, TranscriptRow.call_id == Call.id)
    .outerjoin(RecordingRow, RecordingRow.call_id == Call.id)
)


def _view(row: Any) -> CallView:
    values = dict(row._mapping)
    values["status"] = CallStatus(row.status)
    values["call_type"] = CallType(row.call_type)
    values["transcript_status"] = TranscriptStatus(row.transcript_status)
    return CallView(**values)


async def find(connection: AsyncConnection | AsyncSession, call_id: str) -> CallView | None:
    """The call, of any user."""
    row = (await connection.execute(_VIEW.where(Call.id == call_id))).one_or_none()
    return None if row is None else _view(row)


async def get_own(db: Database, user_id: str, call_id: str) -> CallView:
    """The user's own call. Raises `NoSuchCall`, `NotYourCall`."""
    async with db.statement() as connection:
        call = await find(connection, call_id)
    if call is None:
        raise NoSuchCall
    if call.user_id != user_id:
        raise NotYourCall
    return call


@dataclass(frozen=True, slots=True)
class NumberFilter:
    """Finds numbers that contain `part`, or are `whole`."""

    part: str
    whole: str | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a list of calls. None filters nothing."""

    statuses: Sequence[CallStatus] | None = None
    call_type: str | None = None
    transcript_status: str | None = None
    customer_number: NumberFilter | None = None
    agent_number: NumberFilter | None = None
    did: NumberFilter | None = None
    from_instant: datetime | None = None
    before_instant: datetime | None = None


async def recent(
    db: Database, user_id: str, filters: Filters, *, limit: int, offset: int
) -> tuple[int, list[CallView]]:
    """The number of the user's calls that pass the filters, and one page of these calls, newest first."""
    async with db.statement() as connection:
        total = (await connection.execute(_counting(user_id, filters))).scalar_one()
        rows = await connection.execute(page(user_id, filters, limit=limit, offset=offset))
        return total, [_view(row) for row in rows]


def _counting(user_id: str, filters: Filters) -> Select[int]:
    """The statement that counts. It reads indexes alone, but all of the user's entries in them."""
    if filters.transcript_status is None:
        return select(func.count()).select_from(Call).where(*_conditions(user_id, filters))
    of_transcripts = select(func.count()).select_from(TranscriptRow)
    if filters == Filters(transcript_status=filters.transcript_status):  # each transcript has its call
        return of_transcripts.where(*_transcript_conditions(user_id, filters))
    return of_transcripts.join(Call, TranscriptRow.call_id == Call.id).where(*_conditions(user_id, filters))


def page(user_id: str, filters: Filters, *, limit: int, offset: int) -> Select[*tuple[Any, ...]]:
    """The statement for one page, newest first. The index finds the calls of the page, and only their rows are read."""
    newest = (Call.created_at.desc(), Call.id.desc())
    on_it = select(Call.id).where(*_conditions(user_id, filters)).order_by(*newest).limit(limit).offset(offset)
    if filters.transcript_status is not None:
        on_it = on_it.join(TranscriptRow, TranscriptRow.call_id == Call.id)
    chosen = on_it.subquery()
    return _VIEW.join(chosen, chosen.c.id == Call.id).order_by(*newest)


def _conditions(user_id: str, filters: Filters) -> list[ColumnElement[bool]]:
    narrowing: list[ColumnElement[bool]] = [Call.user_id == user_id]
    if filters.statuses is not None:
        narrowing.append(Call.status.in_(filters.statuses))
    if filters.call_type is not None:
        narrowing.append(Call.call_type == filters.call_type)
    if filters.transcript_status is not None:
        narrowing += _transcript_conditions(user_id, filters)
    for column, number in (
        (Call.customer_number, filters.customer_number),
        (Call.agent_number, filters.agent_number),
        (Call.did, filters.did),
    ):
        if number is not None:
            # strpos, because % and _ would be wildcards in LIKE
            narrowing.append(or_(func.strpos(column, number.part) > 0, column == number.whole))
    if filters.from_instant is not None:
        narrowing.append(Call.created_at >= filters.from_instant)
    if filters.before_instant is not None:
        narrowing.append(Call.created_at < filters.before_instant)
    return narrowing


def _transcript_conditions(user_id: str, filters: Filters) -> list[ColumnElement[bool]]:
    return [TranscriptRow.user_id == user_id, TranscriptRow.status == filters.transcript_status]
