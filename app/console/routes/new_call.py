"""Placing a call."""

from fastapi import APIRouter, Request, Response

from app import audit, dids
from app.audit import AuditAction
from app.console.pages import PageRoute, go, page
from app.console.session import Seen, Viewer, read_form
from app.errors import RingbackError
from app.new_calls import NewCall
from app.numbers import Callee, PhoneNumber
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

LANGUAGES = {"": "As the server is set", "en": "English", "hi": "Hindi"}
_FIELDS = {"customer_number": "customer", "agent_number": "agent", "did": "did", "language": "language"}


@router.get("/calls/new")
async def new_call_page(request: Request, viewer: Seen, customer: str = "", agent: str = "") -> Response:
    """The form."""
    return await _form(request, viewer, {"customer": customer[:30], "agent": agent[:30], "transcript": "on"}, {})


@router.post("/calls")
async def place_call(request: Request, viewer: Seen) -> Response:
    """Order the call, under the same rules as by the API, and go to its page."""
    form, resources = await read_form(request), get_resources(request)
    faults: dict[str, str] = {}
    customer: PhoneNumber | None = None
    agent: Callee | None = None
    did: PhoneNumber | None = None
    try:
        customer = resources.numbers.read(form.get("customer", ""))
    except ValueError as error:
        faults["customer"] = str(error)
    try:
        agent = resources.numbers.read_agent(form.get("agent", ""))
    except ValueError as error:
        faults["agent"] = str(error)
    if form.get("did"):
        try:
            did = resources.numbers.read(form["did"])
        except ValueError as error:
            faults["did"] = str(error)
    language = form.get("language") or None
    if language is not None and language not in LANGUAGES:
        faults["language"] = "Choose one of the languages"
    if faults or customer is None or agent is None:
        return await _form(request, viewer, form, faults)
    order = NewCall(
        customer, agent, did=did, transcript="transcript" in form, language=language, wait_for_hours="wait" in form
    )
    try:
        created = await resources.new_calls.create(viewer.login.claims, order)
    except RingbackError as error:
        field, _, why = error.message.partition(": ")
        if field in _FIELDS:
            return await _form(request, viewer, form, {_FIELDS[field]: why})
        return await _form(request, viewer, form, {"": error.message})
    async with resources.db.transaction() as session:
        await audit.add(session, viewer.actor, AuditAction.PLACED_CALL, subject=created.id, owner=viewer.user_id)
    return go(f"/calls/{created.id}", created.warning or "")


async def _form(request: Request, viewer: Viewer, form: dict[str, str], faults: dict[str, str]) -> Response:
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        channels = await dids.get_channels(session, viewer.user_id)
        labels = await dids.read_labels(session, viewer.user_id)
    default = await resources.providers.get_default()
    simulated = (await resources.providers.get_capabilities(default.name)).simulated
    return page(
        request,
        "new_call.html",
        viewer,
        422 if faults else 200,
        form=form,
        faults=faults,
        channels=channels,
        labels=labels,
        languages=LANGUAGES,
        simulated=simulated,
    )
