"""Fixtures with real servers: one PostgreSQL and one Valkey per test process, from wheels, in the run's folder.

Tests share the database, and each has its own users. A test that needs a whole installation starts one (`acceptance/`).
"""

import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
import structlog
from alembic import command
from fastapi import FastAPI
from pydantic import SecretStr
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from app import accounts, security
from app.call_rules import RulesReader
from app.cli.migrate import alembic_config
from app.db import Database
from app.embedded import Postgres, Valkey
from app.hints import Hints, arq_pool
from app.main import create_app
from app.models import User
from app.new_calls import CallCreator
from app.numbers import PhoneNumber
from app.provider_directory import ProviderDirectory
from app.settings import Settings
from app.telephony.simulator import Simulator
from tests import parallel, run_folder
from tests.__main__ import is_ci

_FOR_TESTS = ("RINGBACK_CHROMIUM", "RINGBACK_SCREENSHOTS")  # see docs/development.md
PASSWORD = "a good password"
CUSTOMER, AGENT = PhoneNumber("919999999999"), PhoneNumber("918888888888")
PRODUCTS_ARGON2 = security._argon2


@dataclass(frozen=True)
class Servers:
    data_dir: Path
    database_url: str
    redis_url: str


@pytest.hookimpl(tryfirst=True)  # before pytest chooses its temporary folder
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # processes of pytest-xdist belong to the run that started them
        folder = run_folder.begin()
        if config.option.basetemp is None:
            config.option.basetemp = str(folder / "tests")
    # Tests must not see the settings of the person who runs them.
    for name in list(os.environ):
        if name.startswith("RINGBACK_") and name not in _FOR_TESTS:
            del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return parallel.ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        parallel.sort(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything that a test needs is there, so a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and is_ci() and reporter.stats.get("skipped"):
        reporter.write_line("\nWith CI=true a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        folder = Path(os.environ[run_folder.VARIABLE])
        run_folder.keep(folder)
        terminalreporter.write_line(f"The files and logs of this run are kept in {folder}")


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hash passwords with one pass over the least memory. The product's hash takes 40 ms of CPU, and nearly every test
    has a user and a login. `tests/unit/test_security.py` tests the product's hash."""
    cheap = PRODUCTS_ARGON2.using(memory_cost=8, time_cost=1)
    with patch.object(security, "_argon2", cheap):
        yield


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    data_dir = tmp_path_factory.mktemp("ringback")
    postgres, valkey = Postgres(data_dir), Valkey(data_dir)
    try:
        yield Servers(data_dir, postgres.start(), valkey.start())
    finally:
        valkey.stop()
        postgres.stop(immediately=True)


@pytest.fixture(scope="session")
def settings(servers: Servers) -> Settings:
    return Settings(
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        data_dir=servers.data_dir,
        secret_key=secrets.token_hex(32),
        call_log_username="greeter",
        call_log_password=SecretStr("a provider's"),
    )


@pytest.fixture(scope="session")
def migrated(settings: Settings) -> Settings:
    command.upgrade(alembic_config(settings.database_url), "head")
    return settings


@pytest.fixture(scope="session")
async def db(migrated: Settings, hints: Hints) -> AsyncIterator[Database]:
    database = Database(migrated.database_url, after_commit=hints.send_noted)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
async def hints(migrated: Settings) -> AsyncIterator[Hints]:
    sender = Hints(arq_pool(migrated.redis_url))
    yield sender
    await sender.aclose()


@pytest.fixture
async def user(db: Database) -> User:
    return await new_user(db)


async def new_user(db: Database, *, active: bool = True, verified: bool = True) -> User:
    async with db.transaction() as session:
        email = f"{secrets.token_hex(6)}@example.com"
        return await accounts.create_user(session, email, PASSWORD, active=active, verified=verified)


def creator_of(db: Database, hints: Hints) -> CallCreator:
    """What creates calls, for tests that dial nobody."""
    settings = Settings.model_construct(secret_key=SecretStr(secrets.token_hex(32)))
    directory = ProviderDirectory(db, settings, environment=Simulator(Path("nowhere")))
    return CallCreator(db, hints, directory, RulesReader(db, settings), settings)


@pytest.fixture(scope="session")
async def app(migrated: Settings) -> AsyncIterator[FastAPI]:
    application = create_app(migrated)
    async with application.router.lifespan_context(application):
        yield application


@asynccontextmanager
async def client_of(app: FastAPI, address: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client with its own address, so that it is not throttled for another test's wrong passwords."""
    address = address or f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
    transport = httpx.ASGITransport(app, client=(address, 1), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ringback") as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as opened:
        yield opened


async def bearer(client: httpx.AsyncClient, user: User) -> dict[str, str]:
    """The Authorization header of a new login."""
    answer = await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}
