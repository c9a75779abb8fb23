"""Callbacks: what failed and why, and sending it again."""

from fastapi import APIRouter, Request, Response

from app import audit, callbacks, deliveries
from app.audit import AuditAction
from app.console.pages import PageRoute, go, own_path, page
from app.console.session import Seen, Viewer, read_form
from app.models import DeliveryStatus
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

_PAGE_ROWS = 50


def _owner(viewer: Viewer, whose: str) -> str | None:
    return None if viewer.login.is_operator and whose == "all" else viewer.user_id


@router.get("/deliveries")
async def deliveries_page(
    request: Request, viewer: Seen, status: str = "", whose: str = "", before: int | None = None
) -> Response:
    """Callbacks, newest first."""
    chosen = DeliveryStatus(status) if status in set(DeliveryStatus) else None
    owner = _owner(viewer, whose)
    async with get_resources(request).db.transaction() as session:
        counts = await deliveries.count(session, owner)
        rows = await deliveries.list_page(session, owner, status=chosen, before=before, limit=_PAGE_ROWS + 1)
        shown = rows[:_PAGE_ROWS]
        attempts = await deliveries.list_attempts(session, [row.delivery.id for row in shown])
        if owner is None:
            await audit.add(session, viewer.actor, AuditAction.LOOKED_AT_CALLS, detail="callbacks")
    return page(
        request,
        "deliveries.html",
        viewer,
        rows=shown,
        attempts=attempts,
        older=shown[-1].delivery.id if len(rows) > _PAGE_ROWS else None,
        before=before,
        chosen=chosen or "",
        statuses=DeliveryStatus,
        counts=counts,
        all_users=owner is None,
    )


@router.post("/deliveries/{message_id}/replay")
async def replay(request: Request, viewer: Seen, message_id: str) -> Response:
    """Send one again."""
    form = await read_form(request)
    async with get_resources(request).db.transaction() as session:
        delivery = await deliveries.get(session, viewer.reach, message_id)
        await callbacks.replay(session, delivery)
        await audit.add(
            session, viewer.actor, AuditAction.REPLAYED_CALLBACK, subject=message_id, owner=delivery.user_id
        )
    return go(own_path(form.get("back", ""), "/deliveries"), "The callback is sent again, as the same message.")


@router.post("/deliveries/replay-failed")
async def replay_failed(request: Request, viewer: Seen) -> Response:
    """Send all that failed again."""
    whose = (await read_form(request)).get("whose", "")
    owner = _owner(viewer, whose)
    async with get_resources(request).db.transaction() as session:
        count = await deliveries.replay_failed(session, owner)
        await audit.add(session, viewer.actor, AuditAction.REPLAYED_CALLBACKS, owner=owner, detail=f"{count} callbacks")
    back = "/deliveries?whose=all" if owner is None else "/deliveries"
    return go(back, f"{count} callbacks are sent again." if count else "No callback has failed.")
