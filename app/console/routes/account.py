"""Signing in and out, the viewer's own settings, and the page before there is any user."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app import accounts, audit, browser_logins
from app.audit import Actor, AuditAction
from app.console.pages import PageRoute, go, own_path, page
from app.console.session import Seen, check_origin, delete_cookie, find_viewer, read_form, set_cookie
from app.errors import RingbackError
from app.models import User
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)


@router.get("/")
async def start(request: Request) -> Response:
    """The calls; before the first user exists, how to create one."""
    if await find_viewer(request) is not None:
        return go("/calls")
    async with get_resources(request).db.transaction() as session:
        anybody = await accounts.is_anybody_there(session)
    return go("/login") if anybody else page(request, "first_run.html", None)


@router.get("/login")
async def login_page(request: Request, next: Annotated[str, Query()] = "") -> Response:
    """The form."""
    if await find_viewer(request) is not None:
        return go(own_path(next))
    return page(request, "login.html", None, next=next, email="", error="")


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Sign in, and go on to the page that was asked for."""
    check_origin(request)
    resources, form = get_resources(request), await read_form(request)
    email, asked = form.get("email", ""), form.get("next", "")
    address = request.client.host if request.client else None
    try:
        token, known_as = await browser_logins.log_in(
            resources.db, resources.throttle, email=email, password=form.get("password", ""), address=address
        )
    except RingbackError as error:
        return page(request, "login.html", None, error.status, next=asked, email=email, error=error.message)
    async with resources.db.transaction() as session:
        await audit.add(session, Actor(known_as, address), AuditAction.SIGNED_IN)
    response = go(own_path(asked))
    set_cookie(request, response, token)
    return response


@router.post("/logout")
async def log_out(request: Request, viewer: Seen) -> Response:
    """Sign out here."""
    async with get_resources(request).db.transaction() as session:
        await browser_logins.log_out(session, viewer.login)
    response = go("/login", "You are signed out.")
    delete_cookie(request, response)
    return response


@router.post("/logout-everywhere")
async def log_out_everywhere(request: Request, viewer: Seen) -> Response:
    """End all logins of the viewer, of browsers and of clients."""
    async with get_resources(request).db.transaction() as session:
        user = await session.get_one(User, viewer.user_id)
        ended = await accounts.log_out_everywhere(session, user)
        await audit.add(session, viewer.actor, AuditAction.SIGNED_OUT_EVERYWHERE, detail=f"{ended} logins")
    response = go("/login", f"You are signed out everywhere: {ended} logins have ended.")
    delete_cookie(request, response)
    return response


@router.post("/show-numbers")
async def show_numbers(request: Request, viewer: Seen) -> Response:
    """Show whole telephone numbers for a while, or hide them again."""
    form = await read_form(request)
    shown = form.get("shown") == "yes"
    action = AuditAction.SHOWED_NUMBERS if shown else AuditAction.HID_NUMBERS
    async with get_resources(request).db.transaction() as session:
        await browser_logins.show_numbers(session, viewer.login, shown=shown)
        await audit.add(session, viewer.actor, action)
    return go(own_path(form.get("back", "")))


@router.get("/account")
async def account_page(request: Request, viewer: Seen) -> Response:
    """The viewer's own settings."""
    async with get_resources(request).db.transaction() as session:
        logins = await accounts.count_logins(session, viewer.user_id)
    return page(request, "account.html", viewer, logins=logins)


@router.post("/theme")
async def choose_theme(request: Request, viewer: Seen) -> Response:
    """Light, dark, or as the system is."""
    chosen = (await read_form(request)).get("theme", "")
    response = go("/account")
    response.set_cookie("theme", chosen[:10], max_age=365 * 86400, path="/", samesite="lax", httponly=True)
    return response
