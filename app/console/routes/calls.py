"""The list of calls, its live changes, and its export."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from app import audit, call_ids, call_lists, figures
from app.audit import AuditAction
from app.call_lists import ListedCall, ListFilters, StatusGroup
from app.console import words
from app.console.live import TooManyStreams
from app.console.pages import HEADERS, PageRoute, page
from app.console.session import NoPage, Seen, Viewer
from app.console.state import get_state
from app.figures import DayFigures
from app.models import CallType, TranscriptStatus
from app.numbers import mask
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

_PAGE_ROWS = 50
_PERIODS = {"today": ("Today", 1), "week": ("7 days", 7), "month": ("30 days", 30)}
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the address of a list asks for."""

    query: str
    group: StatusGroup | None
    outcome: str
    call_type: CallType | None
    transcript: TranscriptStatus | None
    period: str
    first_day: date | None
    last_day: date | None
    all_users: bool

    def address(self, path: str = "/calls", **changed: Any) -> str:
        """The address of this list, with something changed."""
        values = {
            "q": self.query,
            "status": self.group or "",
            "outcome": self.outcome,
            "type": self.call_type or "",
            "transcript": self.transcript or "",
            "period": self.period,
            "from": self.first_day or "",
            "to": self.last_day or "",
            "whose": "all" if self.all_users else "",
        } | changed
        kept = {name: str(value) for name, value in values.items() if value}
        return f"{path}?{urlencode(kept)}" if kept else path

    def filters(self, viewer: Viewer) -> ListFilters:
        began, ended = _day_start(viewer, self.first_day), _day_start(viewer, self.last_day)
        if self.period:
            began = _midnight(viewer) - timedelta(days=_PERIODS[self.period][1] - 1)
        return ListFilters(
            user_id=None if self.all_users else viewer.user_id,
            group=self.group,
            outcome=self.outcome or None,
            call_type=self.call_type,
            transcript_status=self.transcript,
            from_instant=began,
            before_instant=None if ended is None else ended + timedelta(days=1),
            query=self.query,
        )

    @property
    def has_more(self) -> bool:
        """Whether a filter counts that is not on the first line."""
        return bool(self.call_type or self.transcript or self.first_day or self.last_day)

    @property
    def is_filtered(self) -> bool:
        return bool(self.query or self.group or self.outcome or self.has_more)


def _midnight(viewer: Viewer) -> datetime:
    return datetime.now(viewer.zone).replace(hour=0, minute=0, second=0, microsecond=0)


def _day_start(viewer: Viewer, day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), viewer.zone)


Text = Annotated[str, Query(max_length=200)]


async def _read_asked(
    viewer: Seen,
    q: Text = "",
    status: Text = "",
    outcome: Text = "",
    type: Text = "",
    transcript: Text = "",
    period: Text = "",
    first: Annotated[str, Query(alias="from", max_length=20)] = "",
    to: Text = "",
    whose: Text = "",
) -> _Asked:
    """What cannot be understood filters nothing."""
    query, outcome = (text.replace("\0", "").strip() for text in (q, outcome))
    return _Asked(
        query=query,
        group=StatusGroup(status) if status in set(StatusGroup) else None,
        outcome=outcome,
        call_type=CallType(type) if type in set(CallType) else None,
        transcript=TranscriptStatus(transcript) if transcript in set(TranscriptStatus) else None,
        period=period if period in _PERIODS else "",
        first_day=_read_day(first),
        last_day=_read_day(to),
        all_users=viewer.login.is_operator and whose == "all",
    )


def _read_day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2200 else None


Asked = Annotated[_Asked, Depends(_read_asked)]


@router.get("/calls")
async def list_page(request: Request, viewer: Seen, asked: Asked, before: Text = "") -> Response:
    """Today's figures, and a page of calls."""
    today = await _figures(request, viewer, asked)
    async with get_resources(request).db.transaction() as session:
        calls, older = await call_lists.list_page(
            session, asked.filters(viewer), limit=_PAGE_ROWS, before=before or None
        )
        if asked.all_users:
            await audit.add(session, viewer.actor, AuditAction.LOOKED_AT_CALLS, detail=asked.address()[:500])
    return page(
        request,
        "calls.html",
        viewer,
        asked=asked,
        calls=calls,
        older=older,
        before=before,
        today=today,
        periods=_PERIODS,
        call_types={CallType.CLICK_TO_CALL: "Click-to-call", CallType.INBOUND: "Incoming"},
        searched=call_lists.SEARCHED_CALLS,
    )


async def _figures(request: Request, viewer: Viewer, asked: _Asked) -> DayFigures:
    owner, midnight = None if asked.all_users else viewer.user_id, _midnight(viewer)

    async def read() -> DayFigures:
        async with get_resources(request).db.transaction() as session:
            return await figures.read_day(
                session,
                owner,
                from_instant=midnight,
                before_instant=midnight + timedelta(days=1),
                zone=viewer.zone.key,
            )

    return await get_state(request).figures((owner, midnight), read)


@router.get("/calls/events")
async def events(request: Request, viewer: Seen, whose: Text = "", call: Text = "") -> Response:
    """The live changes of a list, or of one call."""
    if call:
        async with get_resources(request).db.transaction() as session:
            found = await call_lists.list_these(session, [call]) if call_ids.is_call_id(call) else []
        if not found or not viewer.may_see(found[0].user_id):
            raise NoPage
    try:
        opened = get_state(request).streams.open(
            viewer, all_users=viewer.login.is_operator and whose == "all", call_id=call or None
        )
    except TooManyStreams:
        return Response("Too many open pages are live", 429, HEADERS)
    return StreamingResponse(opened, media_type="text/event-stream", headers=HEADERS | {"X-Accel-Buffering": "no"})


@router.get("/calls.csv")
async def export(request: Request, viewer: Seen, asked: Asked) -> Response:
    """The calls of the list, all of them. Numbers are whole only while the page shows them so."""
    async with get_resources(request).db.transaction() as session:
        await audit.add(session, viewer.actor, AuditAction.EXPORTED_CALLS, detail=asked.address()[:500])
    name = f"calls-{datetime.now(viewer.zone):%Y-%m-%d-%H%M}.csv"
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_csv(request, viewer, asked), media_type="text/csv; charset=utf-8", headers=headers)


_COLUMNS = (
    "call_id",
    "created_utc",
    "account",
    "status",
    "call_type",
    "customer_number",
    "agent_number",
    "did",
    "talk_seconds",
    "hangup_cause",
    "why",
    "outcome",
    "summary",
)


async def _csv(request: Request, viewer: Viewer, asked: _Asked) -> AsyncIterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    text.write("\ufeff")  # spreadsheets read a file without it in an old encoding
    writer.writerow(_COLUMNS)
    count = 0
    async with get_resources(request).db.transaction() as session:
        async for call in call_lists.read_all(session, asked.filters(viewer)):
            writer.writerow([_cell(value) for value in _row(call, whole=viewer.login.shows_numbers)])
            count += 1
            if count % _ROWS_AT_ONCE == 0:
                yield text.getvalue()
                text.seek(0)
                text.truncate()
    yield text.getvalue()


def _row(call: ListedCall, *, whole: bool) -> tuple[object, ...]:
    return (
        call.id,
        call.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        call.email,
        words.call_status(call)[0],
        call.call_type,
        *(
            number if whole else mask(number)
            for number in (call.customer_number, call.agent_number or "", call.did or "")
        ),
        "" if call.talk_seconds is None else call.talk_seconds,
        call.hangup_cause or "",
        call.failure or "",
        call.outcome or "",
        call.summary or "",
    )


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is made a text again."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
