"""What telephony providers ask of this server, at the URLs that an order gave them.

A notification is not believed. It makes the next question to the provider sooner. So there is nothing to forge, to
replay or to reorder. Its URL is signed, and the adapter checks the provider's own signature where there is one. It may
return the reference of a call that was lost with the answer to its order, which the provider has to confirm.
"""

from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Request, Response

from app import calls, dial_attempts, tasks
from app.api.deps import media_type
from app.engine_models import TaskKind
from app.errors import NoSuchCall, NotOfTheProvider
from app.telephony.base import CallRef, Notification, ProviderError, TelephonyProvider
from app.web.bodies import read_raw_body
from app.web.resources import Resources, get_resources

router = APIRouter(prefix="/api/telephony/{provider}/{call_id}/{signature}", include_in_schema=False)

log = structlog.get_logger()


@router.api_route("", methods=["GET", "POST"])
async def notify(request: Request, provider: str, call_id: str, signature: str) -> Response:
    """Something happened to the call: ask the provider about it now."""
    resources = get_resources(request)
    notification = await _read(request, resources, provider, call_id, signature)
    async with resources.providers.use(provider) as adapter:
        _check_signature(adapter, notification, provider, call_id)
        reference = await _find_lost_reference(resources, adapter, notification, call_id)
    async with resources.db.transaction() as session:
        await tasks.lock_call(session, call_id)
        if reference is not None and await calls.save_found_reference(session, call_id, reference):
            log.info("reference_found", call_id=call_id)
        await tasks.hasten(session, TaskKind.TRACK, call_id)
    return Response(status_code=204)


@router.api_route("/instructions", methods=["GET", "POST"])
async def instructions(request: Request, provider: str, call_id: str, signature: str) -> Response:
    """What the provider is to do with the call, now that the agent has answered."""
    resources = get_resources(request)
    notification = await _read(request, resources, provider, call_id, signature)
    async with resources.providers.use(provider) as adapter:
        _check_signature(adapter, notification, provider, call_id)
        async with resources.db.transaction() as session:
            dialed = await calls.find_dialed(session, call_id)
        if dialed is None or dialed.provider != provider:
            raise NoSuchCall
        order = dial_attempts.order_of(call_id, dialed, resources.settings, resources.provider_links)
        document = adapter.instructions(order)
    return Response(document.body, media_type=document.content_type)


async def _read(request: Request, resources: Resources, provider: str, call_id: str, signature: str) -> Notification:
    """The request as the adapter needs it. Raises `NoSuchCall` if its URL is not ours."""
    url = resources.provider_links.make(provider, call_id)
    if url is None or not resources.provider_links.allows(provider, call_id, signature):
        raise NoSuchCall
    if provider not in await resources.providers.configs():
        raise NoSuchCall
    below = request.url.path.partition(signature)[2]
    query = f"?{request.url.query}" if request.url.query else ""
    body = await read_raw_body(request)
    form = {}
    if media_type(request) == "application/x-www-form-urlencoded":
        form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    return Notification(
        url=f"{url}{below}{query}",
        method=request.method,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        form=form,
    )


async def _find_lost_reference(
    resources: Resources, adapter: TelephonyProvider, notification: Notification, call_id: str
) -> str | None:
    """The reference that the notification names, if the call has none, and the provider confirms that it has such a
    call."""
    reference = adapter.reference_in(notification)
    if reference is None:
        return None
    async with resources.db.transaction() as session:
        if not await calls.has_lost_reference(session, call_id):
            return None
    try:
        return reference if await adapter.fetch(CallRef(call_id, reference)) is not None else None
    except ProviderError as error:
        log.warning("reference_not_confirmed", call_id=call_id, error=str(error))
        return None


def _check_signature(adapter: TelephonyProvider, notification: Notification, provider: str, call_id: str) -> None:
    if not adapter.is_authentic(notification):
        log.warning("notification_refused", provider=provider, call_id=call_id)
        raise NotOfTheProvider
