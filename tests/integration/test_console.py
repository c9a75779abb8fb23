"""The console over HTTP: who may see and do what, and what strangers wrote does nothing."""

import asyncio
import csv
import hashlib
import html
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update

from app import accounts, call_lists, callbacks, calls, new_calls
from app.audit import AuditLine
from app.console.pages import STATIC
from app.db import Database
from app.hints import Hints
from app.models import Call, Delivery, DeliveryStatus, Did, LoginSession, TranscriptRow, User
from app.numbers import PhoneNumber
from app.telephony.base import CallEvent, CallStatus, ProviderError
from tests.conftest import AGENT, CUSTOMER, bearer, client_of, creator_of, new_user
from tests.integration.console import SAME_ORIGIN, Browser, browser_of

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202etxt"
PAGES = ("/calls", "/calls/new", "/numbers", "/deliveries", "/account")


@pytest.fixture
async def browser(app: FastAPI, user: User) -> AsyncIterator[Browser]:
    async with browser_of(app, user) as opened:
        yield opened


@pytest.fixture
async def operator(app: FastAPI, db: Database) -> AsyncIterator[Browser]:
    user = await new_user(db)
    async with db.transaction() as session:
        await accounts.set_operator(session, await session.get_one(User, user.id), is_operator=True)
    async with browser_of(app, user) as opened:
        yield opened


async def new_call(
    db: Database, hints: Hints, user: User, *, callback_url: str | None = None, customer: PhoneNumber = CUSTOMER
) -> str:
    async with db.transaction() as session:
        claims = await accounts.open_login(session, user, seconds=60)
    order = new_calls.NewCall(customer, AGENT, callback_url=callback_url)
    return (await creator_of(db, hints).create(claims, order)).id


async def end(db: Database, call_id: str, detail: str | None = None) -> None:
    at = (await row_of(db, call_id)).created_at
    async with db.transaction() as session:
        event = CallEvent("ended", CallStatus.FAILED, at, hangup_cause="user_busy", detail=detail)
        await calls.apply_events(session, call_id, [event], max_call_seconds=60)


async def row_of(db: Database, call_id: str) -> Call:
    async with db.transaction() as session:
        return await session.get_one(Call, call_id)


async def lines_of(db: Database, subject: str) -> list[str]:
    async with db.transaction() as session:
        return list(await session.scalars(select(AuditLine.action).filter_by(subject=subject).order_by(AuditLine.id)))


async def test_without_a_login_every_page_asks_for_one(app: FastAPI, user: User) -> None:
    async with client_of(app) as client:
        for path in (*PAGES, "/installation", "/calls.csv", "/calls/events", "/calls/call_0123456789abcdef"):
            answer = await client.get(path)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login"), path
        asked = await client.get("/deliveries?status=failed")
        assert asked.headers["location"] == "/login?next=%2Fdeliveries%3Fstatus%3Dfailed"
        assert (await client.get("/")).headers["location"] == "/login"


async def test_signing_in_leads_to_the_page_that_was_asked_for_and_nowhere_else(app: FastAPI, user: User) -> None:
    for asked, then in (
        ("/numbers", "/numbers"),
        ("", "/calls"),
        ("https://evil.example/", "/calls"),
        ("//evil.example/", "/calls"),
        ("/\\evil.example/", "/calls"),
        ("javascript:alert(1)", "/calls"),
    ):
        async with client_of(app) as client:
            answer = await Browser(client).sign_in(user, next=asked)
            assert (answer.status_code, answer.headers["location"]) == (303, then)
            cookie = answer.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie


async def test_over_tls_the_cookie_is_bound_to_the_host(app: FastAPI, user: User) -> None:
    transport = httpx.ASGITransport(app, client=("10.9.8.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://ringback") as client:
        form = {"email": user.email, "password": "a good password"}
        answer = await client.post("/login", data=form, headers={"Origin": "https://ringback"})
        assert answer.headers["set-cookie"].startswith("__Host-ringback=")
        assert "Secure" in answer.headers["set-cookie"]
        assert (await client.get("/calls")).status_code == 200


async def test_a_wrong_password_is_refused_and_slowed_down_as_in_the_api(app: FastAPI, user: User) -> None:
    async with client_of(app) as client:
        browser = Browser(client)
        statuses = []
        for _ in range(7):
            answer = await browser.sign_in(user, "wrong")
            assert 'role="alert"' in answer.text
            statuses.append(answer.status_code)
        assert statuses[:5] == [400] * 5
        assert statuses[-1] == 429
        api = await client.post("/api/developer/login", json={"email": user.email, "password": "a good password"})
        assert api.status_code == 429, "one throttle for both doors"


async def test_a_cookie_is_no_token_and_a_token_no_cookie(app: FastAPI, browser: Browser, user: User) -> None:
    cookie = browser.client.cookies["ringback"]
    answer = await browser.client.get("/api/numbers", headers={"Authorization": f"Bearer {cookie}"})
    assert answer.status_code in (401, 404)
    assert (await browser.client.get("/api/developer/calls/recent")).status_code in (401, 404, 405)
    async with client_of(app) as client:
        token = (await bearer(client, user))["Authorization"].removeprefix("Bearer ")
        client.cookies.set("ringback", token)
        assert (await client.get("/calls")).status_code == 303


async def test_logging_out_ends_the_login_and_not_only_the_cookie(browser: Browser) -> None:
    stolen = browser.client.cookies["ringback"]
    await browser.post("/logout")
    browser.client.cookies.set("ringback", stolen)
    assert (await browser.get("/calls")).status_code == 303


async def test_logging_out_everywhere_ends_browsers_and_tokens(app: FastAPI, browser: Browser, user: User) -> None:
    async with browser_of(app, user) as other, client_of(app) as client:
        headers = await bearer(client, user)
        await browser.post("/logout-everywhere")
        assert (await other.get("/calls")).status_code == 303
        assert (await client.get("/api/developer/calls/call_x/transcript", headers=headers)).status_code == 401


async def test_a_new_password_or_an_inactive_user_ends_the_login(browser: Browser, db: Database, user: User) -> None:
    async with db.transaction() as session:
        await accounts.set_active(session, await session.get_one(User, user.id), active=False)
    assert (await browser.get("/calls")).status_code == 303


async def test_a_login_is_prolonged_by_use_up_to_a_month(browser: Browser, db: Database, user: User) -> None:
    await browser.read("/calls")

    async def expiry() -> float:
        async with db.transaction() as session:
            login = (await session.scalars(select(LoginSession).filter_by(user_id=user.id))).one()
            return (login.expires_at - login.created_at).total_seconds()

    assert 11 * 3600 < await expiry() <= 12 * 3600 + 5
    month = 30 * 86400
    async with db.transaction() as session:
        aged = update(LoginSession).where(LoginSession.user_id == user.id)
        await session.execute(
            aged.values(
                created_at=LoginSession.created_at - timedelta(seconds=month - 3600),
                expires_at=func.now() + timedelta(seconds=60),
            )
        )
    await browser.read("/calls")
    assert await expiry() == pytest.approx(month, abs=5)


# Forms


@pytest.mark.parametrize(
    ("headers", "with_token"),
    [
        (SAME_ORIGIN, False),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
async def test_a_forged_form_does_nothing(
    browser: Browser, db: Database, hints: Hints, user: User, headers: dict[str, str], with_token: bool
) -> None:
    call_id = await new_call(db, hints, user)
    form = {"csrf": await browser.csrf()} if with_token else {}
    for path in (f"/calls/{call_id}/cancel", "/logout", "/calls", "/numbers", "/deliveries/replay-failed"):
        answer = await browser.client.post(path, data=form, headers=headers)
        assert answer.status_code == 403, path
    assert (await row_of(db, call_id)).status == "queued"
    assert (await browser.get("/calls")).status_code == 200


async def test_another_logins_token_is_forged(app: FastAPI, browser: Browser, user: User) -> None:
    async with browser_of(app, user) as other:
        answer = await browser.client.post("/logout", data={"csrf": await other.csrf()}, headers=SAME_ORIGIN)
    assert answer.status_code == 403


async def test_signing_in_from_another_site_is_refused(app: FastAPI, user: User) -> None:
    async with client_of(app) as client:
        form = {"email": user.email, "password": "a good password"}
        answer = await client.post("/login", data=form, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_behind_a_proxy_that_changes_the_host_a_form_is_still_ours(app: FastAPI, user: User) -> None:
    async with client_of(app) as client:
        form = {"email": user.email, "password": "a good password"}
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": "https://calls.example.com"}
        assert (await client.post("/login", data=form, headers=headers)).status_code == 303


async def test_a_get_changes_nothing(browser: Browser, db: Database, hints: Hints, user: User) -> None:
    call_id = await new_call(db, hints, user)
    for path in (f"/calls/{call_id}/cancel", f"/calls/{call_id}/transcript", "/logout", "/show-numbers"):
        assert (await browser.get(path)).status_code in (404, 405), path
    assert (await row_of(db, call_id)).status == "queued"


# Whose calls


async def test_another_users_call_looks_like_one_that_does_not_exist(
    browser: Browser, db: Database, hints: Hints
) -> None:
    owner = await new_user(db)
    call_id = await new_call(db, hints, owner, callback_url="http://receiver.example/")
    await end(db, call_id)
    async with db.transaction() as session:
        message_id = (await session.scalars(select(Delivery.message_id).filter_by(call_id=call_id))).first()
    for path in ("", "/recording", "/peaks"):
        theirs, nobodys = (
            await browser.get(f"/calls/{call_id}{path}"),
            await browser.get(f"/calls/call_0{'a' * 15}{path}"),
        )
        assert theirs.status_code == nobodys.status_code == 404
        assert _without_time(theirs) == _without_time(nobodys)
    assert (await browser.get(f"/calls/events?call={call_id}")).status_code == 404
    for path in (f"/calls/{call_id}/cancel", f"/calls/{call_id}/transcript", f"/deliveries/{message_id}/replay"):
        assert (await browser.post(path)).status_code == 404, path
    assert call_id not in await browser.read("/calls")
    assert call_id not in await browser.read("/calls?whose=all")
    assert f'id="{call_id}"' not in await browser.read(f"/calls?q={call_id}")
    assert call_id not in await browser.read("/deliveries?whose=all")
    assert call_id not in (await browser.get("/calls.csv?whose=all")).text
    assert not await lines_of(db, call_id)


def _without_time(answer: httpx.Response) -> str:
    return re.sub(r'<meta name="now"[^>]*>', "", answer.text)


async def test_ids_that_cannot_be_ids_are_not_there(browser: Browser) -> None:
    for path in (
        "/calls/x",
        "/calls/%00",
        "/calls/call_%F0%9F%98%80",
        "/deliveries/%00/replay",
        "/calls?before=%00&outcome=%00&q=%00",
    ):
        answer = await browser.get(path)
        assert answer.status_code in (200, 404, 405), path


async def test_an_operator_sees_all_and_each_look_is_a_line(
    operator: Browser, db: Database, hints: Hints, user: User
) -> None:
    call_id = await new_call(db, hints, user)
    assert call_id not in await operator.read("/calls")
    assert call_id in await operator.read("/calls?whose=all")
    page = await operator.read(f"/calls/{call_id}")
    assert f"belongs to {user.email}" in page
    assert (await operator.post(f"/calls/{call_id}/cancel")).status_code == 303
    assert (await row_of(db, call_id)).status == "canceled"
    assert await lines_of(db, call_id) == ["looked at a call", "canceled a call"]
    assert "Installation" in await operator.read("/installation")


async def test_only_an_operator_sees_the_installation(browser: Browser, user: User) -> None:
    assert (await browser.get("/installation")).status_code == 404
    assert (await browser.post("/installation/providers/environment/check")).status_code == 404
    assert (await browser.post(f"/installation/users/{user.id}", do="log-out")).status_code == 404
    assert "/installation" not in await browser.read("/calls")


async def test_an_operator_checks_a_provider_and_locks_a_user_out(
    operator: Browser, app: FastAPI, db: Database, user: User
) -> None:
    await operator.post("/installation/providers/environment/check")
    page = await operator.read("/installation")
    assert "simulat" in page
    async with browser_of(app, user) as browser:
        await operator.post(f"/installation/users/{user.id}", do="deactivate")
        assert (await browser.get("/calls")).status_code == 303
    await operator.post(f"/installation/users/{user.id}", do="activate")
    async with browser_of(app, user):
        pass
    assert await lines_of(db, user.email) == ["deactivated a user", "activated a user"]
    assert (await operator.post("/installation/users/USR_00000000", do="log-out")).status_code == 404


# Numbers are masked


async def test_numbers_are_masked_until_they_are_asked_for(
    browser: Browser, db: Database, hints: Hints, user: User
) -> None:
    call_id = await new_call(db, hints, user)
    digits, shown = CUSTOMER.digits, "+91 99999 99999"
    for path in ("/calls", f"/calls/{call_id}", "/calls.csv"):
        text = await browser.read(path)
        assert digits not in text, path
        assert shown not in text, path
    assert (await browser.post("/show-numbers", shown="yes", back="/calls")).headers["location"] == "/calls"
    assert shown in await browser.read("/calls")
    assert shown in await browser.read(f"/calls/{call_id}")
    assert digits in await browser.read("/calls.csv")
    await browser.post("/show-numbers", shown="no")
    assert shown not in await browser.read("/calls")
    async with db.transaction() as session:
        actions = list(await session.scalars(select(AuditLine.action).filter_by(actor=user.email)))
    assert {"showed whole numbers", "hid numbers", "exported calls"} <= set(actions)


# What strangers wrote


async def test_a_script_in_every_field_of_a_stranger_does_nothing(
    browser: Browser, operator: Browser, db: Database, hints: Hints, user: User
) -> None:
    call_id = await new_call(db, hints, user, callback_url=f"http://receiver.example/?{SCRIPT}")
    await end(db, call_id, detail=SCRIPT)
    async with db.transaction() as session:
        turn = {"role": "customer", "content": SCRIPT, "start": 0.0, "end": 1.0}
        written = {"history": [turn], "summary": SCRIPT, "outcome": SCRIPT, "engine": SCRIPT, "language": SCRIPT}
        transcript = update(TranscriptRow).where(TranscriptRow.call_id == call_id)
        await session.execute(transcript.values(status="ready", **written))
        await calls.add_note(session, call_id, SCRIPT)
        await session.execute(update(Delivery).where(Delivery.call_id == call_id).values(last_answer=SCRIPT))
        message = await callbacks.find_next_message(session, call_id, _NoLinks())  # type: ignore[arg-type]
        assert message is not None
        for _ in range(2):
            await callbacks.add_attempt(session, message, call_id, succeeded=False, answer=SCRIPT, seconds=0.1)
        session.add(Did(id="PN_1234567890", number="918047182299", user_id=user.id, max_channels=2, label=SCRIPT))
    pages = ["/calls", f"/calls/{call_id}", "/numbers", "/deliveries", "/calls/new", f"/calls?q={SCRIPT}"]
    texts = [await browser.read(path) for path in pages]
    texts += [await operator.read(path) for path in ("/calls?whose=all", "/deliveries?whose=all", "/numbers")]
    for text in texts:
        assert "<img" not in text
        assert "alert(1)</script>" not in text
    assert html.escape("<script>") in texts[1]
    async with db.transaction() as session:
        await session.delete(await session.get_one(Did, "PN_1234567890"))


class _NoLinks:
    def make(self, *_: object) -> str:
        return "http://ringback/link"


async def test_every_page_has_the_headers_that_keep_strangers_out(browser: Browser, app: FastAPI) -> None:
    async with client_of(app) as client:
        answers = [await browser.get(path) for path in PAGES] + [await client.get("/login")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert " style=" not in answer.text
        assert " onclick" not in answer.text


async def test_formulas_in_the_export_are_texts(browser: Browser, db: Database, hints: Hints, user: User) -> None:
    call_id = await new_call(db, hints, user)
    await end(db, call_id, detail="=HYPERLINK(1)")
    text = (await browser.get("/calls.csv")).text.removeprefix("\ufeff")
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["call_id"] == call_id
    assert line["why"] == "'=HYPERLINK(1)"
    assert line["status"] == "Failed"


# Finding calls


async def test_calls_are_found_by_id_number_words_status_and_outcome(
    browser: Browser, db: Database, hints: Hints, user: User
) -> None:
    said, other = await new_call(db, hints, user), await new_call(db, hints, user, customer=PhoneNumber("919812345678"))
    await end(db, other)
    hindi = "जी हाँ, शनिवार सुबह ठीक रहेगा"
    async with db.transaction() as session:
        turns = [
            {"role": "agent", "content": "Good morning", "start": 0.0, "end": 1.0},
            {"role": "customer", "content": f"Please send the quotation. {hindi}", "start": 1.0, "end": 2.0},
        ]
        transcript = update(TranscriptRow).where(TranscriptRow.call_id == said)
        await session.execute(transcript.values(status="ready", history=turns, outcome="Interested"))

    async def found(query: str) -> set[str]:
        text = await browser.read(f"/calls?{query}")
        return {call_id for call_id in (said, other) if f'id="{call_id}"' in text}

    assert await found("") == {said, other}
    assert await found(f"q={said}") == {said}
    assert await found("q=98123+45678") == {other}
    assert await found("q=%2B91+98123-45678") == {other}
    assert await found("q=098123+45678") == {other}
    assert await found("q=345678") == {other}
    assert await found("q=quotation") == {said}
    assert await found("q=quot") == {said}
    assert await found("q=QUOTATION+send") == {said}
    assert await found("q=quotation+missing") == set()
    assert await found("q=शनिवार") == {said}
    assert await found("q=शनि") == {said}
    assert await found("q=%26%7C%21%28") == set()
    assert await found("status=live") == {said}
    assert await found("status=failed") == {other}
    assert await found("status=answered") == set()
    assert await found("outcome=Interested") == {said}
    assert await found("period=today") == {said, other}
    assert await found("transcript=ready") == {said}
    assert await found("type=C2C") == {said, other}
    assert await found("type=inbound") == set()
    today = datetime.now(ZoneInfo("Asia/Kolkata")).date()
    assert await found(f"from={today}&to={today}") == {said, other}
    assert await found(f"to={today - timedelta(days=1)}") == set()
    assert await found("status=nonsense&period=nonsense&from=x&to=9999-12-31&type=x&transcript=x") == {said, other}


async def test_pages_of_a_long_list_have_each_call_once(
    browser: Browser, db: Database, hints: Hints, user: User
) -> None:
    ids = [await new_call(db, hints, user) for _ in range(120)]
    seen: list[str] = []
    path: str | None = "/calls"
    while path is not None:
        text = await browser.read(path)
        seen += [call_id for call_id in ids if f'id="{call_id}"' in text]
        link = text.partition('rel="next" href="')[2].partition('"')[0]
        path = html.unescape(link) or None
    assert sorted(seen) == sorted(ids)


# Doing things


async def test_a_call_is_placed_under_the_same_rules(browser: Browser, db: Database, user: User) -> None:
    bad = await browser.post("/calls", customer="12", agent="")
    assert bad.status_code == 422
    assert bad.text.count('role="alert"') == 2
    assert 'value="12"' in bad.text, "what was typed stays"
    placed = await browser.post("/calls", customer="98765 43210", agent="91-8888888888", transcript="on")
    call_id = placed.headers["location"].removeprefix("/calls/")
    call = await row_of(db, call_id)
    assert (call.customer_number, call.agent_number, call.user_id) == ("919876543210", "918888888888", user.id)
    assert await lines_of(db, call_id) == ["placed a call"]
    unknown = await browser.post("/calls", customer="9876543210", agent="918888888888", did="918000000000")
    assert "DID not found" in unknown.text


async def test_channels_are_divided_and_numbers_named(browser: Browser, db: Database, user: User) -> None:
    async with db.transaction() as session:
        (await session.get_one(User, user.id)).pool_channels = 10
        session.add(Did(id="PN_0000000001", number="918047100001", user_id=user.id, max_channels=8))
    too_many = await browser.post("/numbers", **{"channels:PN_0000000001": "9"})
    assert too_many.status_code == 422
    assert "above its max_channels" in too_many.text
    assert 'value="9"' in too_many.text
    assert (await browser.post("/numbers", **{"channels:PN_0000000001": "-1"})).status_code == 422
    assert (await browser.post("/numbers", **{"channels:PN_0000000001": "8"})).status_code == 303
    await browser.post("/numbers/PN_0000000001/label", label="Sales")
    page = await browser.read("/numbers")
    assert 'value="Sales"' in page
    assert 'value="8"' in page
    assert (await browser.post("/numbers/PN_9999999999/label", label="x")).status_code == 404
    assert (await browser.post("/numbers/PN_0000000001/label", label="x" * 41)).status_code == 400


async def test_failed_callbacks_are_replayed_one_or_all(
    browser: Browser, db: Database, hints: Hints, user: User
) -> None:
    ids = [await new_call(db, hints, user, callback_url="http://receiver.example/") for _ in range(3)]
    for call_id in ids:
        await end(db, call_id)
    async with db.transaction() as session:
        mine = update(Delivery).where(Delivery.user_id == user.id)
        await session.execute(mine.values(status=DeliveryStatus.FAILED, attempts=8, last_answer="503 busy"))
        message_id = (await session.scalars(select(Delivery.message_id).filter_by(call_id=ids[0]))).first()
    page = await browser.read("/deliveries?status=failed")
    assert page.count("503 busy") == len(ids) * page.count("503 busy") // len(ids) > 0
    assert (await browser.post(f"/deliveries/{message_id}/replay")).status_code == 303

    async def statuses() -> list[str]:
        async with db.transaction() as session:
            return list(await session.scalars(select(Delivery.status).filter_by(user_id=user.id)))

    assert sorted(await statuses()).count("pending") == 1
    await browser.post("/deliveries/replay-failed")
    assert set(await statuses()) == {"pending"}
    assert "No callback has failed" in await browser.read("/deliveries?status=failed")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ConnectionRefusedError("nobody listens"), 503, "cannot reach its database"),
        (ProviderError("the trunk is away"), 503, "the trunk is away"),
        (ZeroDivisionError("a fault of ours"), 500, "log says more"),
    ],
)
async def test_a_failure_is_a_page_that_says_what_to_do(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, says: str
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(call_lists, "list_page", fails)
    answer = await browser.get("/calls")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert says in answer.text
    assert "a fault of ours" not in answer.text


# Live


async def test_a_list_receives_what_changed_and_only_of_its_own_calls(
    app: FastAPI, browser: Browser, operator: Browser, db: Database, hints: Hints, user: User
) -> None:
    other = await new_user(db)
    streams = app.state.console.streams
    mine, everybodys = asyncio.create_task(_rows_of(browser, "")), asyncio.create_task(_rows_of(operator, "whose=all"))
    while len(streams._streams) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # until the follower has subscribed
    call_id, foreign = await new_call(db, hints, user), await new_call(db, hints, other)
    rows = await mine
    assert set(rows) == {call_id}
    assert f'href="/calls/{call_id}"' in rows[call_id]
    assert CUSTOMER.digits not in rows[call_id]
    assert {call_id, foreign} <= set(await everybodys)
    while streams._streams:
        await asyncio.sleep(0.01)


async def _rows_of(browser: Browser, query: str) -> dict[str, str]:
    """The first rows that a stream sends. The client of these tests reads an answer only as a whole, so this asks the
    application itself."""
    cookie = browser.client.cookies["ringback"]
    received: asyncio.Queue[bytes] = asyncio.Queue()
    left = asyncio.Event()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/calls/events",
        "raw_path": b"/calls/events",
        "query_string": query.encode(),
        "headers": [(b"host", b"ringback"), (b"cookie", f"ringback={cookie}".encode())],
        "scheme": "http",
        "server": ("ringback", 80),
        "client": ("10.1.1.1", 1),
        "root_path": "",
        "http_version": "1.1",
    }

    async def receive() -> dict[str, object]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        received.put_nowait(bytes(message.get("body", b"")))  # type: ignore[call-overload]

    transport = browser.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    running: asyncio.Task[None] = asyncio.create_task(transport.app(scope, receive, send))  # type: ignore[arg-type]
    rows: dict[str, str] = {}
    async with asyncio.timeout(30):
        while not rows:
            text = (await received.get()).decode()
            if text.startswith("event: rows"):
                rows = json.loads(text.partition("data: ")[2])
    left.set()
    await asyncio.wait([running])
    return rows


# Files


def test_the_files_of_others_are_what_their_packages_had() -> None:
    folder = STATIC / "vendor"
    manifest = json.loads((folder / "vendor.json").read_text())
    known = {name: digest for package in manifest for name, digest in package["files"].items()}
    assert known == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "vendor.json"
    }


def test_pages_name_no_other_origin() -> None:
    templates = Path(STATIC).parent / "templates"
    for path in (*templates.glob("*.html"), *STATIC.glob("*.js"), *STATIC.glob("*.css")):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path


async def test_without_the_console_there_is_only_the_api(migrated: object) -> None:
    from app.main import create_app
    from app.settings import Settings

    assert isinstance(migrated, Settings)
    app = create_app(migrated.model_copy(update={"console": False}))
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/calls")).status_code == 404
        assert (await client.get("/healthz")).status_code == 200
