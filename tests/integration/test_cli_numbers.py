"""`ringback dids`, `api-keys`, `deliveries`, and what `users` sets."""

import secrets
from datetime import UTC, datetime

from sqlalchemy import update

from app import accounts, calls, dids
from app.db import Database
from app.hints import Hints
from app.models import Delivery, User
from app.new_calls import NewCall
from app.numbers import PhoneNumber
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import AGENT, CUSTOMER, creator_of
from tests.integration.command import Ringback


def number() -> str:
    return f"9180{secrets.randbelow(10**8):08d}"


def test_dids(ringback: Ringback, user: User) -> None:
    mine = number()
    assert "PN_" in ringback("dids", "add", f"+{mine}", "--user", user.email, "--max-channels", "5").check()
    assert "already" in ringback("dids", "add", mine[2:]).refused()
    assert "8 to 15 digits" in ringback("dids", "add", "12").refused()
    assert "no user" in ringback("dids", "add", number(), "--user", "nobody@example.com").refused()
    listed = next(line for line in ringback("dids", "list").check().splitlines() if mine in line)
    assert user.email in listed
    assert "active" in listed
    assert "expired" in ringback("dids", "expire", mine).check()
    assert "active" in ringback("dids", "expire", mine, "--undo").check()
    assert "nobody's" in ringback("dids", "assign", mine[2:]).check()
    assert user.email in ringback("dids", "assign", mine, "--user", user.email).check()
    assert "dids list" in ringback("dids", "expire", number()).refused()


async def test_users_set(ringback: Ringback, db: Database, user: User) -> None:
    output = ringback("users", "set", user.email, "--pool-channels", "7", "--compat-callbacks", "on").check()
    assert "7 channels" in output
    async with db.transaction() as session:
        mine = await session.get_one(User, user.id)
        assert (mine.pool_channels, mine.compat_callbacks) == (7, True)
    assert "off" in ringback("users", "set", user.email, "--compat-callbacks", "off").check()
    output = ringback("users", "set", user.email, "--transcript-vocabulary", "Sunrise  Solar,\nPriya, Priya,").check()
    assert output.rstrip().endswith("vocabulary: Sunrise Solar, Priya")
    assert ringback("users", "show", user.email).check() == output
    assert "600 characters" in ringback("users", "set", user.email, "--transcript-vocabulary", "x" * 601).refused()
    assert "vocabulary" not in ringback("users", "set", user.email, "--transcript-vocabulary", "").check()
    assert "--pool-channels" in ringback("users", "set", user.email).refused()


def test_webhook_secret(ringback: Ringback, user: User) -> None:
    first = ringback("users", "webhook-secret", user.email).check().strip()
    assert first.startswith("whsec_")
    new, old = ringback("users", "webhook-secret", user.email, "--rotate").check().split()
    assert old == first
    assert new != first
    newest = ringback("users", "webhook-secret", user.email, "--rotate", "--overlap-hours", "0").check().split()
    assert new not in newest


async def test_api_keys(ringback: Ringback, db: Database, user: User) -> None:
    key = ringback("api-keys", "create", user.email).check().strip()
    assert await accounts.get_api_key_user(db, key) == user.id
    listed = ringback("api-keys", "list").check()
    assert key[:12] in listed
    assert key not in listed
    assert "revoked" in ringback("api-keys", "revoke", key[:12]).check()
    assert "api-keys list" in ringback("api-keys", "revoke", key[:12]).refused()


async def test_deliveries(ringback: Ringback, db: Database, hints: Hints, user: User) -> None:
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    order = NewCall(CUSTOMER, AGENT, callback_url="http://127.0.0.1:1/hook")
    call_id = (await creator_of(db, hints).create(claims, order)).id
    async with db.transaction() as session:
        canceled = CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC))
        await calls.apply_events(session, call_id, [canceled], max_call_seconds=60)
    listed = ringback("deliveries", "list", "--call", call_id).check()
    lines = [line for line in listed.splitlines() if call_id in line]
    assert ["call.not_answered" in line for line in lines] == [False, True], "the newest first"
    name = next(word for word in lines[1].split() if word.startswith("msg_"))
    shown = ringback("deliveries", "show", name).check()
    assert "http://127.0.0.1:1/hook" in shown
    assert "xxxxx9999999" in shown
    assert "sent again" in ringback("deliveries", "replay", name).check()
    assert "0 callbacks" in ringback("deliveries", "replay", "--failed-of", user.email).check()
    async with db.transaction() as session:
        await session.execute(update(Delivery).where(Delivery.call_id == call_id).values(status="failed"))
    assert "2 callbacks" in ringback("deliveries", "replay", "--failed-of", user.email).check()
    assert ringback("deliveries", "list", "--call", call_id, "--status", "pending").check().count(call_id) == 2
    assert "--failed-of" in ringback("deliveries", "replay").refused()
    assert name in ringback("calls", "show", call_id).check()
    assert "deliveries list" in ringback("deliveries", "show", "msg_0").refused()
    assert "No callbacks" in ringback("deliveries", "list", "--call", "call_0").check()


async def test_erase(ringback: Ringback, db: Database, user: User) -> None:
    async with db.transaction() as session:
        await dids.add(session, PhoneNumber(number()), owner=await session.get_one(User, user.id), max_channels=1)
    assert "0 calls" in ringback("users", "erase", user.email, "--yes").check()
    assert "no user" in ringback("users", "erase", user.email, "--yes").refused()
