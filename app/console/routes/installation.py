"""The installation, for its operator: what works, what waits, who uses it, who did what."""

import asyncio

from fastapi import APIRouter, Request, Response

from app import accounts, audit, health, installation
from app.audit import AuditAction
from app.console.pages import PageRoute, go, page
from app.console.session import NoPage, SeenByOperator, read_form
from app.console.state import get_state
from app.installation import StorageUse
from app.models import User
from app.telephony.base import Finding, ProviderError
from app.web.resources import get_resources

router = APIRouter(route_class=PageRoute)

_AUDIT_LINES = 30
_CHECK_SECONDS = 60.0


@router.get("/installation")
async def installation_page(request: Request, viewer: SeenByOperator) -> Response:
    """Everything at one look."""
    resources = get_resources(request)
    missing = await health.missing_parts(resources.db, resources.redis)
    async with resources.db.transaction() as session:
        queues = await installation.list_queues(session)
        providers = await installation.list_providers(session)
        users = await accounts.list_users(session)
        lines = await audit.list_lines(session, limit=_AUDIT_LINES)

    async def measure() -> StorageUse:
        async with resources.db.transaction() as session:
            return await installation.measure_storage(session)

    return page(
        request,
        "installation.html",
        viewer,
        missing=missing,
        queues=queues,
        providers=providers,
        users=users,
        lines=lines,
        storage=get_state(request).storage(measure),
        checks=get_state(request).checks,
    )


@router.post("/installation/providers/{name}/check")
async def check_provider(request: Request, viewer: SeenByOperator, name: str) -> Response:
    """Examine a telephony provider. Nobody is called."""
    resources = get_resources(request)
    async with resources.db.transaction() as session:
        if name not in [provider.name for provider in await installation.list_providers(session)]:
            raise NoPage
        await audit.add(session, viewer.actor, AuditAction.CHECKED_PROVIDER, subject=name)
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(_CHECK_SECONDS), resources.providers.use(name) as provider:
            async for finding in provider.check():
                findings.append(finding)
    except (ProviderError, TimeoutError) as error:
        findings.append(Finding("check", ok=False, seen=str(error) or "It took too long", fix="Look at its options"))
    get_state(request).checks[name] = findings
    return go(f"/installation#provider-{name}")


@router.post("/installation/users/{user_id}")
async def change_user(request: Request, viewer: SeenByOperator, user_id: str) -> Response:
    """Activate, deactivate, or end all logins of a user."""
    wanted = (await read_form(request)).get("do", "")
    async with get_resources(request).db.transaction() as session:
        user = await session.get(User, user_id)
        if user is None:
            raise NoPage
        if user.id == viewer.user_id and wanted == "deactivate":
            return go("/installation#users", "You cannot deactivate yourself.")
        if wanted == "activate":
            await accounts.set_active(session, user, active=True)
            action, said = AuditAction.ACTIVATED_USER, f"{user.email} is active."
        elif wanted == "deactivate":
            await accounts.set_active(session, user, active=False)
            action, said = AuditAction.DEACTIVATED_USER, f"{user.email} is inactive; all logins have ended."
        elif wanted == "log-out":
            ended = await accounts.log_out_everywhere(session, user)
            action, said = AuditAction.LOGGED_OUT_USER, f"{ended} logins of {user.email} have ended."
        else:
            raise NoPage
        await audit.add(session, viewer.actor, action, subject=user.email, owner=user.id)
    return go("/installation#users", said)
