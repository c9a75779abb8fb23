"""Rented numbers and their channels."""

from fastapi import APIRouter, Request, Response

from app import audit, dids
from app.audit import AuditAction
from app.console.pages import PageRoute, go, page
from app.console.session import Seen, Viewer, read_form
from app.dids import ChannelAllocation
from app.errors import RingbackError
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

_PREFIX = "channels:"


@router.get("/numbers")
async def numbers_page(request: Request, viewer: Seen) -> Response:
    """The viewer's numbers; an operator also sees those of others."""
    return await _page(request, viewer, {}, "")


@router.post("/numbers")
async def allocate(request: Request, viewer: Seen) -> Response:
    """Divide the viewer's channels, all in one step, under the same rules as by the API."""
    form = await read_form(request)
    asked = {name.removeprefix(_PREFIX): value for name, value in form.items() if name.startswith(_PREFIX)}
    if not all(value.isascii() and value.isdigit() and len(value) < 6 for value in asked.values()):
        return await _page(request, viewer, asked, "Each number of channels must be a whole number")
    changes = [ChannelAllocation(int(value), phone_number_id=name) for name, value in asked.items()]
    try:
        async with get_resources(request).db.transaction() as session:
            await dids.allocate(session, viewer.user_id, changes, replace=False)
            detail = ", ".join(f"{name}: {value}" for name, value in asked.items())
            await audit.add(
                session, viewer.actor, AuditAction.ALLOCATED_CHANNELS, owner=viewer.user_id, detail=detail[:500]
            )
    except RingbackError as error:
        return await _page(request, viewer, asked, error.message)
    return go("/numbers", "The channels are divided.")


@router.post("/numbers/{phone_number_id}/label")
async def label(request: Request, viewer: Seen, phone_number_id: str) -> Response:
    """Name one of the viewer's numbers."""
    text = (await read_form(request)).get("label", "")
    async with get_resources(request).db.transaction() as session:
        await dids.set_label(session, viewer.user_id, phone_number_id, text)
        await audit.add(
            session,
            viewer.actor,
            AuditAction.LABELED_NUMBER,
            subject=phone_number_id,
            owner=viewer.user_id,
            detail=text[:100],
        )
    return go("/numbers", "The number has its new name.")


async def _page(request: Request, viewer: Viewer, asked: dict[str, str], fault: str) -> Response:
    async with get_resources(request).db.transaction() as session:
        channels = await dids.get_channels(session, viewer.user_id)
        labels = await dids.read_labels(session, viewer.user_id)
        inbound = {
            did.id: did.inbound_callback_url
            for did in await dids.list_inbound(session, viewer.user_id, configured_only=True)
        }
        others = (
            [(did, email) for did, email in await dids.list_all(session) if did.user_id != viewer.user_id]
            if viewer.login.is_operator
            else []
        )
    return page(
        request,
        "numbers.html",
        viewer,
        422 if fault else 200,
        channels=channels,
        labels=labels,
        inbound=inbound,
        others=others,
        asked=asked,
        fault=fault,
        prefix=_PREFIX,
    )
