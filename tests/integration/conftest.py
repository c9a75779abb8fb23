"""A house to run a worker's tasks in."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import accounts, calls, providers
from app.calls import NewCall
from app.db import Database
from app.models import Did, User
from app.numbers import PhoneNumber
from app.outbound import Outbound, parse_networks
from app.settings import Settings
from app.storage import FolderStorage
from app.tasks import Hints
from app.transcription.outcome import RulesSummarizer
from tests.conftest import AGENT, bearer
from tests.integration.command import Ringback
from tests.integration.current import add_did
from tests.integration.house import SAID, Heard, House, MakeHouse, Scripted
from worker.context import Context, receivers, recording_hosts


@pytest.fixture
async def context(db: Database, hints: Hints, migrated: Settings, tmp_path: Path) -> AsyncIterator[Context]:
    """A worker's, which may reach this machine."""
    opened = Context(
        settings=migrated,
        db=db,
        hints=hints,
        provider=Scripted(),
        storage=FolderStorage(tmp_path),
        recognizer=Heard(SAID),
        summarizer=RulesSummarizer(),
        outbound=Outbound(parse_networks("127.0.0.0/8")),
        links=providers.links(migrated),
        receivers=receivers(migrated),
        recording_hosts=recording_hosts(migrated),
    )
    yield opened
    await opened.outbound.aclose()


@pytest.fixture
async def headers(client: httpx.AsyncClient, user: User) -> dict[str, str]:
    return await bearer(client, user)


@pytest.fixture
async def did(db: Database, user: User) -> Did:
    return await add_did(db, user)


@pytest.fixture
def house_with(context: Context, user: User) -> MakeHouse:
    async def make(provider: Any = None, recognizer: Any = None, customer: str = "919999999999") -> House:
        async with context.db.transaction() as session:
            claims = await accounts.open_login(session, user, seconds=60)
        created = await calls.create_call(context.db, context.hints, claims, NewCall(PhoneNumber(customer), AGENT))
        own = replace(context, provider=provider or context.provider, recognizer=recognizer or context.recognizer)
        return House(own, created.id)

    return make


@pytest.fixture
def ringback(migrated: Settings, tmp_path: Path) -> Ringback:
    return Ringback(migrated, tmp_path)
