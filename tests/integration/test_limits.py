"""No bill that frightens: limits, destinations, calling hours, do-not-call, recording and keys, over HTTP."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from app import accounts, call_rules, do_not_call, usage
from app.db import Database
from app.models import Call, Did, User
from app.numbers import NumberRules, PhoneNumber
from app.rule_models import IdempotencyKey
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import bearer
from tests.envelopes import data_of, error_of
from tests.integration.call_runner import CallRunner, MakeCallRunner, ScriptedProvider
from tests.integration.call_runner import ended as ended_snapshot
from tests.integration.command import Ringback
from tests.integration.current_calls import dial, ended, happen, order, talk

SEED = "/api/developer/calls/click2call"
CURRENT = "/api/calls/click2call"
BODY = {"customer_number": "919999999999", "agent_number": "918888888888"}
"""Both dialects take it on the simulator; the current one needs a DID besides."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are read each time, so that no test waits for a second."""
    monkeypatch.setattr(call_rules, "FRESH_SECONDS", -1.0)


SetRules = Callable[..., Awaitable[None]]


@pytest.fixture
def set_rules(db: Database, user: User, migrated: Settings) -> SetRules:
    async def change(**changes: Any) -> None:
        async with db.transaction() as session:
            await call_rules.change(session, user, changes, migrated.zone)

    return change


@pytest.fixture
async def set_installation(db: Database, migrated: Settings) -> AsyncIterator[SetRules]:
    """The rules of the installation, for one test. Tests that share the database run one after another."""
    changed: dict[str, Any] = {}

    async def change(**changes: Any) -> None:
        changed.update(changes)
        async with db.transaction() as session:
            await call_rules.change(session, None, changes, migrated.zone)

    yield change
    async with db.transaction() as session:
        await call_rules.change(session, None, dict.fromkeys(changed), migrated.zone)


async def place(client: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> httpx.Response:
    return await client.post(SEED, json={**BODY, **more}, headers=headers)


async def place_ok(client: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> str:
    answer = await place(client, headers, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["call_id"])


async def count_calls(db: Database, user: User) -> int:
    async with db.transaction() as session:
        return await session.scalar(select(func.count()).where(Call.user_id == user.id)) or 0


# Limits


async def test_a_hundred_at_once_at_a_limit_of_ten_are_ten(
    client: httpx.AsyncClient, db: Database, user: User, headers: dict[str, str], set_rules: SetRules
) -> None:
    await set_rules(calls_at_once=10)
    answers = await asyncio.gather(*(place(client, headers) for _ in range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 90
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "10"
    assert refused.json() == {
        "status_code": 429,
        "message": None,
        "error": "Your account may have at most 10 calls at once. Try again later",
        "data": None,
    }
    assert await count_calls(db, user) == 10
    one = next(answer for answer in answers if answer.status_code == 200).json()["data"]["call_id"]
    await happen(db, one, CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC)))
    await place_ok(client, headers)
    assert (await place(client, headers)).status_code == 429


async def test_limits_by_minute_and_day_are_exact(
    client: httpx.AsyncClient, db: Database, user: User, headers: dict[str, str], set_rules: SetRules, did: Did
) -> None:
    await set_rules(calls_per_minute=3, calls_per_day=5)
    answers = await asyncio.gather(*(place(client, headers) for _ in range(20)))
    assert sum(answer.status_code == 200 for answer in answers) == 3
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    async with db.transaction() as session:
        await session.execute(
            update(Call).where(Call.user_id == user.id).values(created_at=Call.created_at - timedelta(minutes=2))
        )
    answers = await asyncio.gather(
        *(client.post(CURRENT, json=order(did), headers=headers) for _ in range(20))
    )  # the other dialect, with a DID
    made = sum(answer.status_code == 200 for answer in answers)
    assert made == 2 or (made == 3 and datetime.now(UTC).hour == 18), "midnight in India may lie between"
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "calls a day" in refused.json()["error"]
    assert int(refused.headers["Retry-After"]) <= 86400


async def test_minutes_of_talk(
    client: httpx.AsyncClient,
    db: Database,
    user: User,
    headers: dict[str, str],
    set_rules: SetRules,
    migrated: Settings,
) -> None:
    await set_rules(talk_minutes_per_month=1)
    talked = await place_ok(client, headers)
    await talk(db, talked)  # 30 seconds, and over
    live = await place_ok(client, headers)
    async with db.transaction() as session:
        began = datetime.now(UTC) - timedelta(seconds=40)
        await session.execute(update(Call).where(Call.id == live).values(status="ringing", dialed_at=began))
    await happen(db, live, CallEvent("answered", CallStatus.IN_PROGRESS, began))
    assert "1 minutes of talk a month" in error_of(await place(client, headers), 429)
    await happen(db, live, ended())
    assert "1 minutes of talk a month" in error_of(await place(client, headers), 429)
    async with db.transaction() as session:
        used = await usage.measure(session, user.id, migrated.zone)
    assert used.talk_minutes_per_month == 2
    assert used.calls_at_once == 0
    await set_rules(talk_minutes_per_month=None, talk_minutes_per_day=5)
    await place_ok(client, headers)


async def test_limits_of_the_installation_are_of_all_users_together(
    client: httpx.AsyncClient, db: Database, user: User, headers: dict[str, str], set_installation: SetRules,
    migrated: Settings,
) -> None:  # fmt: skip
    async with db.transaction() as session:
        others = (await usage.measure(session, None, migrated.zone)).calls_at_once or 0
        somebody = await accounts.create_user(session, f"{secrets.token_hex(6)}@example.com", "a good password")
    await set_installation(calls_at_once=others + 4)
    both = (headers, await bearer(client, somebody))
    answers = await asyncio.gather(*(place(client, both[number % 2]) for number in range(20)))
    assert sum(answer.status_code == 200 for answer in answers) == 4
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "This server allows at most" in refused.json()["error"]


# Destinations


async def test_on_the_simulator_nothing_is_restricted_until_it_is_set(
    client: httpx.AsyncClient, headers: dict[str, str], set_rules: SetRules, db: Database, user: User
) -> None:
    await place_ok(client, headers, customer_number="+12025550143")
    await set_rules(destinations="in")
    made = await count_calls(db, user)
    error = error_of(await place(client, headers, customer_number="+12025550143"), 403)
    assert error.startswith("customer_number: 12025550143 is a number of US, and only IN may be called")
    error = error_of(await place(client, headers, agent_number="+19005551234"), 403)
    assert error.startswith("agent_number: 19005551234 is a premium-rate number")
    assert await count_calls(db, user) == made
    await place_ok(client, headers, customer_number="15005550001")
    await place_ok(client, headers, agent_number="101")


async def test_a_user_may_be_allowed_less_but_not_more(
    client: httpx.AsyncClient, headers: dict[str, str], set_rules: SetRules, set_installation: SetRules
) -> None:
    await set_installation(destinations="IN, GB")
    await set_rules(destinations="+9198, US")
    await place_ok(client, headers, customer_number="9876543210", agent_number="9876543210")
    for number in ("9999999999", "+447400123456", "+12025550143"):
        error_of(await place(client, headers, customer_number=number), 403)


# Do not call


async def test_a_number_on_the_list_is_not_called(
    client: httpx.AsyncClient, db: Database, headers: dict[str, str], user: User, ringback: Ringback
) -> None:
    customer = f"98{secrets.randbelow(10**8):08d}"
    queued = await place_ok(client, headers, customer_number=customer)
    answer = await client.post("/api/do-not-call", json={"numbers": [f"+91 {customer}", customer]}, headers=headers)
    assert data_of(answer, "Do-not-call list updated") == {"added": 1}
    error = error_of(await place(client, headers, customer_number=f"0{customer}"), 403)
    assert error == "customer_number: this number is on the do-not-call list"
    listed = await client.get("/api/do-not-call", headers=headers)
    assert data_of(listed, "Do-not-call list fetched")["numbers"] == [f"91{customer}"]
    async with db.transaction() as session:
        other = await accounts.create_user(session, f"{secrets.token_hex(6)}@example.com", "a good password")
    await place_ok(client, await bearer(client, other), customer_number=customer)
    assert "is not called any more" in ringback("do-not-call", "add", customer).check()
    error_of(await place(client, await bearer(client, other), customer_number=customer), 403)
    assert "can be called again" in ringback("do-not-call", "remove", customer).check()
    gone = await client.delete(f"/api/do-not-call/{customer}", headers=headers)
    assert data_of(gone, "Do-not-call list updated") == {"number": f"91{customer}"}
    error_of(await client.delete(f"/api/do-not-call/{customer}", headers=headers), 404)
    error_of(await client.delete("/api/do-not-call/xyz", headers=headers), 422)
    error_of(await client.post("/api/do-not-call", json={"numbers": ["abc"]}, headers=headers), 422)
    assert queued


async def test_a_call_that_is_queued_when_its_customer_is_listed_ends(make_runner: MakeCallRunner) -> None:
    customer = f"9198{secrets.randbelow(10**8):08d}"
    runner = await make_runner(customer=customer)
    async with runner.context.db.transaction() as session:
        await do_not_call.add(session, None, [PhoneNumber(customer)])
    await runner.run("dial")
    call = await runner.call()
    assert (call.status, call.failure) == ("failed", "The customer's number is on the do-not-call list")
    assert runner.provider.orders == []


async def test_a_file_is_imported(ringback: Ringback, db: Database, user: User, tmp_path: Path) -> None:
    first = f"98{secrets.randbelow(10**8):08d}"
    file = tmp_path / "list.csv"
    file.write_text(f'\ufeffphone,name\n{first},Asha\n+91{first};again\n"0{first}"\n+447400123456\nnonsense\n,\n')
    result = ringback("do-not-call", "import", str(file), "--user", user.email)
    assert result.code == 1
    assert "Added 2 numbers; 2 were on the list already, or twice in the file" in result.out
    assert "line 6: nonsense" in result.stderr
    async with db.transaction() as session:
        assert await do_not_call.list_numbers(session, user.id, limit=9) == [f"91{first}", "447400123456"]


# Calling hours


def closed_now() -> str:
    """Hours that are over now, in India, and begin again in less than a day."""
    local = datetime.now(UTC) + timedelta(hours=5, minutes=30)
    begins = local + timedelta(hours=2)
    return f"Mon-Sun {begins:%H:%M}-{begins + timedelta(hours=1):%H:%M}"


async def test_a_call_outside_calling_hours_ends_at_once(
    client: httpx.AsyncClient, headers: dict[str, str], set_rules: SetRules, did: Did
) -> None:
    await set_rules(hours=closed_now())
    answer = await client.post(CURRENT, json=order(did, transcript=True), headers=headers)
    call_id = data_of(answer, "Click2Call request created")["call_id"]
    recent = await client.get("/api/calls/recent", headers=headers)
    assert [call["status"] for call in recent.json()["data"]["calls"] if call["call_id"] == call_id] == ["afthrs"]
    polled = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    assert polled.json()["data"]["transcript_status"] == "failed"
    assert polled.json()["data"]["error"].startswith("Calls are made Mon-Sun ")


async def test_a_call_waits_for_calling_hours_if_its_client_wants_that(
    client: httpx.AsyncClient, db: Database, headers: dict[str, str], set_rules: SetRules
) -> None:
    await set_rules(hours=closed_now())
    call_id = await place_ok(client, headers, after_hours="wait")
    async with db.transaction() as session:
        call = await session.get_one(Call, call_id)
    assert call.status == "queued"
    assert call.dial_after is not None
    assert timedelta(hours=1, minutes=50) < call.dial_after - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    error_of(await place(client, headers, after_hours="tomorrow"), 400)


@pytest.fixture
async def waiting(make_runner: MakeCallRunner) -> CallRunner:
    """A call that was queued while calls were made."""
    return await make_runner()


async def close(runner: CallRunner, migrated: Settings) -> None:
    async with runner.context.db.transaction() as session:
        call = await session.get_one(Call, runner.call_id)
        owner = await session.get_one(User, call.user_id)
        await call_rules.change(session, owner, {"hours": closed_now()}, migrated.zone)


async def test_hours_that_end_while_a_call_is_queued(waiting: CallRunner, migrated: Settings) -> None:
    await close(waiting, migrated)
    await waiting.run("dial")
    assert (await waiting.call()).status == "after_hours"
    assert waiting.provider.orders == []


async def test_a_queued_call_that_waits_is_dialed_when_hours_begin(waiting: CallRunner, migrated: Settings) -> None:
    await close(waiting, migrated)
    async with waiting.context.db.transaction() as session:
        (await session.get_one(Call, waiting.call_id)).waits_for_hours = True
    await waiting.run("dial")
    call = await waiting.call()
    assert call.status == "queued"
    assert call.dial_after is not None
    async with waiting.context.db.transaction() as session:
        owner = await session.get_one(User, call.user_id)
        await call_rules.change(session, owner, {"hours": None}, migrated.zone)
        (await session.get_one(Call, waiting.call_id)).created_at -= timedelta(hours=12)
    await waiting.run("dial")
    assert (await waiting.call()).status == "dialing", "it is not too late: it could not be dialed before"


# Recording


@pytest.mark.parametrize("by", ["call", "user", "installation"])
async def test_a_call_that_must_not_be_recorded(
    client: httpx.AsyncClient, db: Database, headers: dict[str, str], set_rules: SetRules, set_installation: SetRules,
    by: str, make_runner: MakeCallRunner,
) -> None:  # fmt: skip
    if by != "call":
        await (set_rules if by == "user" else set_installation)(record=False)
    call_id = await place_ok(client, headers, **({"record": False} if by == "call" else {}))
    runner = await make_runner(ScriptedProvider(snapshot=ended_snapshot()))
    runner.call_id = call_id
    await runner.run("dial")
    assert [order.record for order in runner.provider.orders] == [False]
    await runner.run("track")  # the provider says that it has a recording
    assert await runner.open_tasks() == []
    assert (await runner.transcript()).failure == "The call was not recorded, as was ordered"


# Keys


async def test_a_hundred_orders_with_one_key_are_one_call(
    client: httpx.AsyncClient, db: Database, user: User, headers: dict[str, str]
) -> None:
    keyed = {**headers, "Idempotency-Key": secrets.token_hex(8)}
    answers = await asyncio.gather(*(place(client, keyed) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await count_calls(db, user) == 1
    error = error_of(await place(client, keyed, customer_number="919999999998"), 409)
    assert "Send a new key" in error
    await place_ok(client, keyed, customer_number="+91 99999 99999")  # the same order, written in another way
    assert await count_calls(db, user) == 1


async def test_a_key_is_of_one_user_and_lives_for_a_day(
    client: httpx.AsyncClient, db: Database, user: User, headers: dict[str, str], did: Did
) -> None:
    keyed = {"Idempotency-Key": secrets.token_hex(8)}
    first = await client.post(CURRENT, json=order(did), headers=headers | keyed)
    again = await client.post(CURRENT, json=order(did), headers=headers | keyed)
    assert first.json() == again.json()
    assert first.json()["data"]["warning"], "and its warning is the same"
    async with db.transaction() as session:
        other = await accounts.create_user(session, f"{secrets.token_hex(6)}@example.com", "a good password")
        old = update(IdempotencyKey).where(IdempotencyKey.user_id == user.id)
        await session.execute(old.values(created_at=func.now() - timedelta(hours=25)))
    assert (await client.post(SEED, json=BODY, headers=await bearer(client, other) | keyed)).status_code == 200
    renewed = await client.post(CURRENT, json=order(did), headers=headers | keyed)
    assert renewed.json()["data"]["call_id"] != first.json()["data"]["call_id"]


async def test_an_order_that_was_refused_leaves_its_key_free(
    client: httpx.AsyncClient, headers: dict[str, str], set_rules: SetRules
) -> None:
    keyed = {**headers, "Idempotency-Key": secrets.token_hex(8)}
    await set_rules(calls_per_day=0)
    assert (await place(client, keyed)).status_code == 429
    await set_rules(calls_per_day=None)
    await place_ok(client, keyed)


@pytest.mark.parametrize("key", ["has blanks", "x" * 256])
async def test_a_key_has_a_form(client: httpx.AsyncClient, headers: dict[str, str], key: str) -> None:
    assert "Idempotency-Key" in error_of(await place(client, {**headers, "Idempotency-Key": key}), 400)


# Cancel


async def cancel(client: httpx.AsyncClient, headers: dict[str, str], call_id: str) -> httpx.Response:
    return await client.post(f"/api/calls/{call_id}/cancel", headers=headers)


async def test_a_queued_call_is_canceled(client: httpx.AsyncClient, db: Database, headers: dict[str, str]) -> None:
    call_id = await place_ok(client, headers)
    assert data_of(await cancel(client, headers, call_id), "Call canceled") == {
        "call_id": call_id,
        "status": "NoAnswered",
        "result": "canceled",
    }
    again = data_of(await cancel(client, headers, call_id), "Call had ended before")
    assert again["result"] == "ended_before"
    error_of(await cancel(client, headers, "call_0000000000000000"), 404)


async def test_a_call_in_progress_is_hung_up(client: httpx.AsyncClient, db: Database, headers: dict[str, str]) -> None:
    call_id = await place_ok(client, headers)
    await dial(db, call_id)
    await happen(db, call_id, CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC)))
    answer = data_of(await cancel(client, headers, call_id), "Call is being hung up")
    assert answer["result"] == "hanging_up"


async def test_nobody_cancels_another_users_call(
    client: httpx.AsyncClient, db: Database, headers: dict[str, str]
) -> None:
    call_id = await place_ok(client, headers)
    async with db.transaction() as session:
        other = await accounts.create_user(session, f"{secrets.token_hex(6)}@example.com", "a good password")
    error_of(await cancel(client, await bearer(client, other), call_id), 403)


@pytest.mark.parametrize(("status", "said"), [("dialing", "begun to dial"), ("in_progress", "in progress")])
async def test_a_provider_that_cannot_end_a_call_is_not_said_to_have_done_it(
    make_runner: MakeCallRunner, status: str, said: str
) -> None:
    from dataclasses import replace

    from app.errors import Conflict

    provider = ScriptedProvider()
    provider.capabilities = replace(provider.capabilities, hangup=False, cancel=False)
    runner = await make_runner(provider)
    await runner.run("dial")
    if status == "in_progress":
        await happen(
            runner.context.db, runner.call_id, CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC))
        )
    with pytest.raises(Conflict, match=said):
        async with runner.context.db.transaction() as session:
            await runner.cancel(session)
    assert (await runner.call()).status == status


# The command line


async def test_limits_are_shown_and_changed(ringback: Ringback, user: User) -> None:
    changed = ringback(
        "limits", "set", "--user", user.email, "--calls-at-once", "10", "--destinations", "in, +97150", "--hours",
        "mon-sat 9:00-21:00", "--record", "off",
    ).check()  # fmt: skip
    assert user.email in changed
    shown = ringback("limits", "show", "--user", user.email).check()
    for said in ("calls at once", "10", "IN, +97150", "Mon-Sat 9:00-21:00 (Asia/Kolkata)", "off", "no limit"):
        assert said in shown
    ringback("limits", "set", "--user", user.email, "--calls-at-once", "none", "--hours", "none").check()
    assert "always" in ringback("limits", "show", "--user", user.email).check()
    assert "IN; with a simulator, everywhere" in ringback("limits", "show").check()
    assert "ISO code" in ringback("limits", "set", "--destinations", "India").refused()
    assert "Mon-Sat" in ringback("limits", "set", "--hours", "always").refused()
    assert "whole number" in ringback("limits", "set", "--calls-per-day", "-1").refused()
    assert "limits set --help" in ringback("limits", "set").refused()


def test_numbers_are_read_on_all_cpus(migrated: Settings) -> None:
    lines = [(position, f"98{position:08d}\n") for position in range(1, 50)]
    numbers, faults = do_not_call._read_chunk(NumberRules(migrated.home_country), lines)
    assert (len(numbers), faults) == (49, [])
