"""The list of calls, its live changes, and its export."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from app import audit, call_lists, figures
from app.audit import AuditAction
from app.call_lists import ListedCall, ListFilters, StatusGroup
from app.console import words
from app.console.live import TooManyStreams
from app.console.pages import HEADERS, PageRoute, page
from app.console.session import NoPage, Seen, Viewer
from app.console.state import get_state
from app.figures import DayFigures
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
    period: str
    all_users: bool

    def address(self, path: str = "/calls", **changed: Any) -> str:
        """The address of this list, with something changed."""
        values = {
            "q": self.query,
            "status": self.group or "",
            "outcome": self.outcome,
            "period": self.period,
            "whose": "all" if self.all_users else "",
        } | changed
        kept = {name: str(value) for name, value in values.items() if value}
        return f"{path}?{urlencode(kept)}" if kept else path

    def filters(self, viewer: Viewer) -> ListFilters:
        days = _PERIODS.get(self.period)
        return ListFilters(
            user_id=None if self.all_users else viewer.user_id,
            group=self.group,
            outcome=self.outcome or None,
            from_instant=None if days is None else _midnight(viewer) - timedelta(days=days[1] - 1),
            query=self.query,
        )

    @property
    def is_filtered(self) -> bool:
        return bool(self.query or self.group or self.outcome)


def _midnight(viewer: Viewer) -> datetime:
    return datetime.now(viewer.zone).replace(hour=0, minute=0, second=0, microsecond=0)


Text = Annotated[str, Query(max_length=200)]


async def _read_asked(
    viewer: Seen, q: Text = "", status: Text = "", outcome: Text = "", period: Text = "", whose: Text = ""
) -> _Asked:
    query, outcome = (text.replace("\0", "").strip() for text in (q, outcome))
    group = StatusGroup(status) if status in set(StatusGroup) else None
    all_users = viewer.login.is_operator and whose == "all"
    return _Asked(query, group, outcome, period if period in _PERIODS else "", all_users)


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
            (found,) = await call_lists.list_these(session, [call]) or (None,)
        if found is None or not viewer.may_see(found.user_id):
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
        call_lists.shown_number(call.customer_number, whole=whole),
        call_lists.shown_number(call.agent_number, whole=whole),
        call_lists.shown_number(call.did, whole=whole),
        "" if call.talk_seconds is None else call.talk_seconds,
        call.hangup_cause or "",
        call.failure or "",
        call.outcome or "",
        call.summary or "",
    )


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is made a text again."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
