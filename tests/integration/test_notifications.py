"""What a telephony provider asks of this server about a call: a notification hastens, and changes nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, func, select, update

from app import providers
from app.db import Database
from app.engine_models import Task, TaskKind
from app.models import Call, User
from app.provider_directory import ProviderDirectory
from app.security import ProviderLinks
from app.settings import Settings
from app.telephony.base import CallOrder, Instructions, Notification, ProviderError, Snapshot
from tests.conftest import client_of
from tests.integration.call_runner import CallRunner, MakeCallRunner, ScriptedProvider

PUBLIC_URL = "https://ringback.example.com/api-host"


class Signing(ScriptedProvider):
    """Signs what it sends with a header that names the URL."""

    def is_authentic(self, notification: Notification) -> bool:
        self.last = notification
        return notification.headers.get("x-signed-url") == notification.url

    def reference_in(self, notification: Notification) -> str | None:
        return notification.url.partition("named=")[2] or None

    def instructions(self, order: CallOrder) -> Instructions:
        return Instructions("application/xml", f"<Dial>{order.customer_number}</Dial>")


@pytest.fixture
def provider() -> Signing:
    return Signing()


@pytest.fixture
def links(migrated: Settings) -> ProviderLinks:
    return ProviderLinks(migrated.secret_key.get_secret_value(), PUBLIC_URL)


@pytest.fixture
async def provider_client(
    app: FastAPI, db: Database, migrated: Settings, provider: Signing, links: ProviderLinks
) -> AsyncIterator[httpx.AsyncClient]:
    """A provider that speaks to a server with a public address."""
    resources = app.state.resources
    directory = ProviderDirectory(db, migrated, environment=provider)
    app.state.resources = replace(resources, providers=directory, provider_links=links)
    async with client_of(app) as client:
        yield client
    app.state.resources = resources


@pytest.fixture
async def runner(make_runner: MakeCallRunner, provider: Signing, links: ProviderLinks) -> CallRunner:
    """A call that this provider has."""
    runner = await make_runner(provider)
    runner.context = replace(runner.context, provider_links=links)
    await runner.run("dial")
    async with runner.context.db.transaction() as session:
        later = update(Task).where(Task.call_id == runner.call_id).values(due_at=func.now() + timedelta(hours=1))
        await session.execute(later)
    return runner


async def is_due(runner: CallRunner) -> bool:
    async with runner.context.db.transaction() as session:
        due = select(Task.due_at <= func.now()).filter_by(call_id=runner.call_id, kind=TaskKind.TRACK)
        return bool(await session.scalar(due))


def path_of(url: str | None) -> str:
    assert url is not None
    return url.removeprefix(PUBLIC_URL)


async def test_a_notification_hastens_the_next_question(
    provider_client: httpx.AsyncClient, runner: CallRunner, provider: Signing
) -> None:
    (order,) = provider.orders
    assert not await is_due(runner)
    url = f"{order.notify_url}?leg=1&status=completed"
    answer = await provider_client.post(path_of(url), data={"CallStatus": "completed"}, headers={"X-Signed-URL": url})
    assert answer.status_code == 204
    assert await is_due(runner)
    assert (await runner.call()).status == "dialing", "it is not believed"
    assert (provider.last.method, provider.last.url, provider.last.form) == (
        "POST",
        url,
        {"CallStatus": "completed"},
    )


async def test_a_notification_returns_a_lost_reference(
    provider_client: httpx.AsyncClient, runner: CallRunner, provider: Signing
) -> None:
    async def notified(reference: str, *, lost: bool = True) -> str | None:
        async with runner.context.db.transaction() as session:
            losing = update(Call).where(Call.id == runner.call_id)
            await session.execute(losing.values(provider_reference=None if lost else "ref-known"))
        url = f"{provider.orders[0].notify_url}?named={reference}"
        answer = await provider_client.post(path_of(url), headers={"X-Signed-URL": url})
        assert answer.status_code == 204
        assert await is_due(runner)
        return (await runner.call()).provider_reference

    named = f"ref-{runner.call_id}"
    provider.snapshot = None
    assert await notified(named) is None, "the provider does not know it"
    provider.snapshot = ProviderError("away")
    assert await notified(named) is None
    provider.snapshot = Snapshot(())
    assert await notified(named) == named
    assert await notified(named, lost=False) == "ref-known"


async def test_a_notification_that_is_forged_does_nothing(
    provider_client: httpx.AsyncClient, runner: CallRunner, provider: Signing
) -> None:
    (order,) = provider.orders
    path = path_of(order.notify_url)
    assert (await provider_client.post(path)).status_code == 403, "the provider did not sign it"
    other = path.replace(runner.call_id, "call_0000000000000000")
    assert (await provider_client.post(other)).status_code == 404, "our signature is of another call"
    assert (await provider_client.post(path[:-4] + "0000")).status_code == 404
    assert (await provider_client.post(path.replace("environment", "other"))).status_code == 404
    assert not await is_due(runner)


async def test_a_notification_of_a_call_that_is_over_adds_no_work(
    provider_client: httpx.AsyncClient, runner: CallRunner, provider: Signing
) -> None:
    async with runner.context.db.transaction() as session:
        await session.execute(delete(Task).where(Task.call_id == runner.call_id))
    url = provider.orders[0].notify_url or ""
    assert (await provider_client.get(path_of(url), headers={"X-Signed-URL": url})).status_code == 204
    assert await runner.open_tasks() == []


async def test_instructions_are_given_while_the_call_lives(
    provider_client: httpx.AsyncClient, runner: CallRunner, provider: Signing
) -> None:
    url = provider.orders[0].instructions_url or ""
    answer = await provider_client.post(path_of(url), headers={"X-Signed-URL": url})
    assert answer.headers["Content-Type"].startswith("application/xml")
    assert answer.text == "<Dial>919999999999</Dial>"
    assert (await provider_client.get(path_of(url))).status_code == 403
    provider.snapshot = None
    async with runner.context.db.transaction() as session:
        await runner.cancel(session)
    assert (await provider_client.get(path_of(url), headers={"X-Signed-URL": url})).status_code == 404


async def test_without_a_public_address_there_is_nothing_to_call(
    client: httpx.AsyncClient, make_runner: MakeCallRunner, migrated: Settings, user: User
) -> None:
    runner = await make_runner()
    await runner.run("dial")
    (order,) = runner.provider.orders
    assert (order.notify_url, order.instructions_url) == (None, None)
    signed = ProviderLinks(migrated.secret_key.get_secret_value(), PUBLIC_URL).make("environment", runner.call_id)
    assert (await client.post(path_of(signed))).status_code == 404
    assert providers.provider_links(migrated).make("environment", runner.call_id) is None
