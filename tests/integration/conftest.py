"""Fixtures for tests of the API, the domain and the workers' tasks."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from redis.asyncio import Connection
from sqlalchemy import delete, text
from sqlalchemy.engine import make_url

from app import accounts, providers
from app.call_rules import RulesReader
from app.cli.migrate import alembic_config
from app.db import Database
from app.engine_models import Task, Worker
from app.hints import Hints, arq_pool
from app.models import Did, User
from app.new_calls import CallCreator, NewCall
from app.numbers import PhoneNumber
from app.outbound import Outbound, parse_networks
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from app.storage import FolderStorage
from app.transcription.summary import LocalSummarizer
from tests.conftest import AGENT, bearer, new_user
from tests.integration.call_runner import SAID, CallRunner, MakeCallRunner, ScriptedProvider, StubRecognizer
from tests.integration.command import Ringback
from tests.integration.current_calls import add_did
from tests.integration.isolated_worker import IsolatedWorker
from worker.context import Context, receivers, recording_hosts
from worker.gates import Gates

WORKERS_DATABASE = 7


@pytest.fixture
async def context(db: Database, hints: Hints, migrated: Settings, tmp_path: Path) -> AsyncIterator[Context]:
    """A worker's context. It may send requests to this machine."""
    opened = Context(
        settings=migrated,
        db=db,
        hints=hints,
        providers=ProviderDirectory(db, migrated, environment=ScriptedProvider()),
        provider_links=providers.provider_links(migrated),
        rules=RulesReader(db, migrated),
        gates=Gates(),
        storage=FolderStorage(tmp_path),
        recognizer=StubRecognizer(SAID),
        summarizer=LocalSummarizer(),
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
def make_runner(context: Context, user: User) -> MakeCallRunner:
    async def make(provider: Any = None, recognizer: Any = None, customer: str = "919999999999") -> CallRunner:
        async with context.db.transaction() as session:
            claims = await accounts.open_login(session, user, seconds=60)
        provider = provider or ScriptedProvider()
        directory = ProviderDirectory(context.db, context.settings, environment=provider)
        order = NewCall(PhoneNumber(customer), AGENT)
        created = await CallCreator(context.db, context.hints, directory, context.rules, context.settings).create(
            claims, order
        )
        own = replace(context, providers=directory, recognizer=recognizer or context.recognizer)
        return CallRunner(own, created.id, provider)

    return make


@pytest.fixture(scope="session")
async def isolated_settings(migrated: Settings) -> Settings:
    """A database and a Valkey for whole workers, so that they run no tasks of other tests."""
    admin = Database(migrated.database_url, pool_size=1)
    async with admin.statement() as connection:
        await connection.execute(text("CREATE DATABASE of_workers"))
    await admin.dispose()
    database_url = make_url(migrated.database_url).set(database="of_workers").render_as_string(hide_password=False)
    await asyncio.to_thread(command.upgrade, alembic_config(database_url), "head")
    return migrated.model_copy(
        update={
            "database_url": database_url,
            "redis_url": migrated.redis_url.removesuffix("/0") + f"/{WORKERS_DATABASE}",
            "sweep_seconds": 0.2,
        }
    )


@pytest.fixture
async def isolated(isolated_settings: Settings, context: Context) -> AsyncIterator[IsolatedWorker]:
    redis = arq_pool(isolated_settings.redis_url)
    hints = Hints(redis)
    db = Database(isolated_settings.database_url, pool_size=4, after_commit=hints.send_noted)
    await redis.flushdb()
    yield IsolatedWorker(isolated_settings, replace(context, db=db, hints=hints), await new_user(db), redis)
    async with db.transaction() as session:
        await session.execute(delete(Task))
        await session.execute(delete(Worker))
    await redis.flushdb()
    await hints.aclose()
    await db.dispose()
    await close_what_a_stop_left_open()


async def close_what_a_stop_left_open() -> None:
    """Close the connections that a stopped worker left open. A worker waits some seconds for Valkey, and then its
    process ends. In a test the process goes on."""
    for connection in [found for found in gc.get_objects() if isinstance(found, Connection)]:
        if connection.is_connected and connection.db == WORKERS_DATABASE:
            await connection.disconnect()


@pytest.fixture
def ringback(migrated: Settings, tmp_path: Path) -> Ringback:
    return Ringback(migrated, tmp_path)
