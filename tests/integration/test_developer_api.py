"""The developer dialect, key by key and word by word, on the shipped application."""

import asyncio
import re
import secrets
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from app import accounts, transcripts
from app.db import Database
from app.engine_models import Task
from app.errors import TooManyAttempts
from app.models import Call, CallEventRow, Did, LoginSession, TranscriptRow, User
from app.settings import Settings
from app.throttle import LoginThrottle
from app.transcription.base import Digest, SpokenTurn, Transcription
from tests.conftest import PASSWORD, bearer, client_of, new_user
from tests.envelopes import data_of, error_of
from tests.integration.current_calls import add_did

NUMBERS = {"customer_number": "919999999999", "agent_number": "918888888888"}
CREATE = "/api/developer/calls/click2call"
UNAUTHORIZED = {"detail": "Could not validate credentials"}


async def create(client: httpx.AsyncClient, headers: dict[str, str]) -> str:
    return str(
        data_of(await client.post(CREATE, json=NUMBERS, headers=headers), "Click2Call request created")["call_id"]
    )


# Login


async def test_login(client: httpx.AsyncClient, user: User) -> None:
    answer = await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})
    data = data_of(answer, "Login successful")
    assert list(data) == ["access_token", "refresh_token", "token_type"]
    assert data["token_type"] == "bearer"
    assert data["access_token"] != data["refresh_token"]


async def test_login_takes_the_email_in_any_case(client: httpx.AsyncClient, user: User) -> None:
    answer = await client.post("/api/developer/login", json={"email": user.email.upper(), "password": PASSWORD})
    data_of(answer, "Login successful")


async def test_unknown_user_and_wrong_password_are_alike(client: httpx.AsyncClient, user: User) -> None:
    answers = [
        await client.post("/api/developer/login", json={"email": email, "password": "wrong"})
        for email in (user.email, "nobody@example.com", "no address", "nul\0@example.com", "")
    ]
    assert {error_of(answer, 400) for answer in answers} == {"Incorrect email or password"}


async def test_inactive_and_unverified_users_cannot_log_in(client: httpx.AsyncClient, db: Database) -> None:
    for changes, word in (({"active": False}, "Inactive"), ({"verified": False}, "Unverified")):
        user = await new_user(db, **changes)
        right = await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})
        assert word in error_of(right, 400)
        wrong = await client.post("/api/developer/login", json={"email": user.email, "password": "wrong"})
        assert error_of(wrong, 400) == "Incorrect email or password", "a stranger learns nothing"


async def test_failed_logins_are_throttled_but_the_owner_gets_in(app: FastAPI, user: User) -> None:
    login = {"email": user.email, "password": PASSWORD}
    async with client_of(app) as stranger, client_of(app) as owner:
        answers = [await stranger.post("/api/developer/login", json={**login, "password": "guess"}) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [400] * 5 + [429] * 2
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 15 * 60
        assert "Try again in" in error_of(answers[-1], 429)
        assert (await stranger.post("/api/developer/login", json=login)).status_code == 429, "even a right guess"
        data_of(await owner.post("/api/developer/login", json=login), "Login successful")


async def test_an_attack_from_everywhere_does_not_slow_a_known_address(
    migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed: list[float] = []

    async def sleep(seconds: float) -> None:
        slowed.append(seconds)

    monkeypatch.setattr("app.throttle.asyncio.sleep", sleep)
    throttle = LoginThrottle(migrated.redis_url)
    account, home = f"{secrets.token_hex(4)}@example.com", "10.1.2.3"
    assert not await throttle.check(account, home)
    await throttle.record_success(account, home)
    for n in range(40):
        await throttle.record_failure(account, f"10.9.{n}.1")
    assert await throttle.check(account, home)
    assert not slowed
    assert not await throttle.check(account, "10.1.2.4")
    assert slowed, "a stranger waits"
    for _ in range(5):
        await throttle.record_failure(account, home)
    with pytest.raises(TooManyAttempts):
        await throttle.check(account, home)
    await throttle.aclose()


async def test_right_logins_are_never_throttled(client: httpx.AsyncClient, user: User) -> None:
    for _ in range(8):
        await bearer(client, user)


# Tokens


async def test_refresh_gives_a_new_access_token_and_the_same_refresh_token(
    client: httpx.AsyncClient, user: User
) -> None:
    login = (await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})).json()["data"]
    answer = await client.post("/api/developer/refresh_token", params={"refresh_token": login["refresh_token"]})
    data = data_of(answer, "Token refreshed successfully")
    assert list(data) == ["access_token", "refresh_token", "token_type"]
    assert data["refresh_token"] == login["refresh_token"]
    assert data["access_token"] != login["access_token"]
    await create(client, {"Authorization": f"Bearer {data['access_token']}"})


async def test_refresh_refuses(client: httpx.AsyncClient, db: Database, user: User) -> None:
    path = "/api/developer/refresh_token"
    login = (await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})).json()["data"]
    assert "refresh_token" in error_of(await client.post(path), 400)
    for not_ours in ("", "x", "a.b.c", "\0", login["access_token"], "x" * 20_000):
        error_of(await client.post(path, params={"refresh_token": not_ours}), 400)
    header, body, signature = login["refresh_token"].split(".")
    changed = f"{header}.{body}.{signature[:-4]}AAAA"
    error_of(await client.post(path, params={"refresh_token": changed}), 401)
    async with db.transaction() as session:
        await accounts.log_out_everywhere(session, user)
    error_of(await client.post(path, params={"refresh_token": login["refresh_token"]}), 401)


async def revoke(db: Database, user: User, how: str) -> None:
    async with db.transaction() as session:
        mine = await session.get_one(User, user.id)
        if how == "password":
            await accounts.set_password(session, mine, "another password")
        elif how == "logout":
            await accounts.log_out_everywhere(session, mine)
        elif how == "expiry":
            await session.execute(
                update(LoginSession).where(LoginSession.user_id == user.id).values(expires_at=datetime.now(UTC))
            )
        elif how == "erase":
            await session.delete(mine)
        else:
            await accounts.set_active(session, mine, active=False)
            if how == "reactivated":
                await accounts.set_active(session, mine, active=True)


@pytest.mark.parametrize(
    ("how", "status"),
    [("password", 401), ("logout", 401), ("expiry", 401), ("erase", 401), ("deactivated", 400), ("reactivated", 401)],
)
async def test_tokens_die_at_once(client: httpx.AsyncClient, db: Database, user: User, how: str, status: int) -> None:
    headers = await bearer(client, user)
    call_id = await create(client, headers)
    await revoke(db, user, how)
    for answer in (
        await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers),
        await client.get("/api/developer/calls/nonsense/transcript", headers=headers),
        await client.post(CREATE, json=NUMBERS, headers=headers),
        await client.post(CREATE, content=b"{", headers=headers),
        await client.post(CREATE, content=b"{" + b" " * 70_000, headers=headers),
        await client.post(CREATE, json={**NUMBERS, "did": "911111111111"}, headers=headers),
    ):
        if status == 401:
            assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        else:
            assert error_of(answer, 400) == "Inactive user"


async def test_a_login_never_ends_another(client: httpx.AsyncClient, user: User) -> None:
    first, second = await bearer(client, user), await bearer(client, user)
    await create(client, first)
    await create(client, second)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer x", "Bearer a.b.c", "Token x", "Bearer " + "x" * 20_000, "é"],
)
async def test_without_a_good_token_nothing_else_is_looked_at(client: httpx.AsyncClient, header: str | None) -> None:
    headers: dict[bytes, bytes] = {} if header is None else {b"Authorization": header.encode()}
    for answer in (
        await client.post(CREATE, content=b"{not json", headers=headers),
        await client.get("/api/developer/calls/nonsense/transcript", headers=headers),
    ):
        assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_refresh_token_is_no_access_token(client: httpx.AsyncClient, user: User) -> None:
    login = (await client.post("/api/developer/login", json={"email": user.email, "password": PASSWORD})).json()["data"]
    answer = await client.post(CREATE, json=NUMBERS, headers={"Authorization": f"Bearer {login['refresh_token']}"})
    assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED)


# click2call


async def test_create_commits_the_call_with_its_event_transcript_and_task(
    client: httpx.AsyncClient, db: Database, user: User
) -> None:
    headers = await bearer(client, user)
    sent = {"customer_number": " +919999999999 ", "agent_number": "8888888888", "unknown": {"x": [1]}}
    data = data_of(await client.post(CREATE, json=sent, headers=headers), "Click2Call request created")
    assert list(data) == ["call_id", "status"]
    assert data["status"] == "queued"
    assert re.fullmatch(r"call_[0-9a-z]{16}", data["call_id"])
    async with db.transaction() as session:
        call = await session.get_one(Call, data["call_id"])
        assert (call.user_id, call.status) == (user.id, "queued")
        assert (call.customer_number, call.agent_number) == ("919999999999", "918888888888")
        of_call = {"call_id": call.id}
        assert (await session.scalars(select(CallEventRow.status).filter_by(**of_call))).all() == ["queued"]
        assert (await session.scalars(select(Task.kind).filter_by(**of_call))).all() == ["dial"]
        transcript = (await session.scalars(select(TranscriptRow).filter_by(**of_call))).one()
        assert re.fullmatch(r"[0-9a-f]{24}", transcript.id)
        assert transcript.status == "pending"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 50_000, "not valid JSON"),
        (b'{"customer_number": NaN, "agent_number": "918888888888"}', "customer_number"),
        (b'{"customer_number": "\\ud800", "agent_number": "918888888888"}', ""),
        (b'{"customer_number": "9199999\\u000099999", "agent_number": "918888888888"}', "customer_number"),
        (b'{"customer_number": 919999999999, "agent_number": "918888888888"}', "customer_number"),
        (b'{"customer_number": "919999999999"}', "agent_number"),
        (b'{"customer_number": "12", "agent_number": "x"}', "agent_number"),
        (b'{"customer_number": null, "agent_number": ["918888888888"]}', "customer_number"),
    ],
)
async def test_create_refuses_what_is_no_order(
    client: httpx.AsyncClient, user: User, body: bytes, expected: str
) -> None:
    headers = {**await bearer(client, user), "Content-Type": "application/json"}
    assert expected in error_of(await client.post(CREATE, content=body, headers=headers), 400)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "", "multipart/form-data"])
async def test_create_wants_json(client: httpx.AsyncClient, user: User, content_type: str) -> None:
    headers = {**await bearer(client, user), "Content-Type": content_type}
    assert "application/json" in error_of(await client.post(CREATE, content=b"{}", headers=headers), 400)


async def test_a_body_that_is_too_large(client: httpx.AsyncClient, user: User) -> None:
    headers = {**await bearer(client, user), "Content-Type": "application/json"}
    error_of(await client.post(CREATE, content=b" " * 20_000_000, headers=headers), 413)


async def test_a_fault_never_shows_what_was_sent(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/developer/login", json={"email": ["secret-mail"], "password": {"a": "secret-word"}}
    )
    assert "secret" not in error_of(answer, 400)


async def test_optional_fields_mean_the_same_in_the_developer_dialect(
    client: httpx.AsyncClient, db: Database, user: User
) -> None:
    headers = await bearer(client, user)

    async def answer(**more: object) -> httpx.Response:
        return await client.post(CREATE, json={**NUMBERS, **more}, headers=headers)

    own, foreign, expired = await add_did(db, user), await add_did(db, await new_user(db)), await add_did(db, user)
    async with db.transaction() as session:
        await session.execute(update(Did).where(Did.id == expired.id).values(expired_at=datetime.now(UTC)))
    sent = {"did": own.number, "transcript": False, "transcript_language": "hi-IN", "callback_url": None}
    data = data_of(await answer(**sent), "Click2Call request created")
    assert data == {"call_id": data["call_id"], "status": "queued", **sent}
    assert data_of(await answer(transcript=None), "Click2Call request created")["transcript"] is True
    error_of(await answer(did="911111111111"), 404)
    error_of(await answer(did=foreign.number), 403)
    assert "expired" in error_of(await answer(did=expired.number), 409)
    error_of(await answer(agent_number="AGT_1"), 400)
    error_of(await answer(transcript_language="no language"), 400)


# Transcript


async def test_transcript_pending(client: httpx.AsyncClient, user: User) -> None:
    headers = await bearer(client, user)
    call_id = await create(client, headers)
    answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    data = data_of(answer, "Transcript not available yet")
    assert list(data.items()) == [("call_id", call_id), ("transcript_status", "pending"), ("transcript", None)]


async def test_transcript_pending_while_it_is_being_made(client: httpx.AsyncClient, db: Database, user: User) -> None:
    headers = await bearer(client, user)
    call_id = await create(client, headers)
    async with db.transaction() as session:
        assert await transcripts.start(session, call_id)
    answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    assert data_of(answer, "Transcript not available yet")["transcript_status"] == "pending"


async def test_transcript_ready(client: httpx.AsyncClient, db: Database, user: User) -> None:
    headers = await bearer(client, user)
    call_id = await create(client, headers)
    turns = (
        SpokenTurn("agent", "Hello? \N{BLACK HEART SUIT} नमस्ते", 0.5, 1.25),
        SpokenTurn("customer", 'Yes, "I" do', 1.5, 2.0),
    )
    made = Transcription(turns, Digest("They spoke.", "Interested"), "en", 2.0)
    async with db.transaction() as session:
        assert await transcripts.save(session, call_id, made, engine="a test")
        assert not await transcripts.fail(session, call_id, "too late"), "an end is an end"
    answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    data = data_of(answer, "Transcript found")
    assert list(data) == ["call_id", "transcript_status", "transcript"]
    assert data["transcript_status"] == "ready"
    transcript = data["transcript"]
    assert list(transcript) == ["transcript_id", "summary", "call_outcome", "history", "createdAt", "updatedAt"]
    assert re.fullmatch(r"[0-9a-f]{24}", transcript["transcript_id"])
    assert (transcript["summary"], transcript["call_outcome"]) == ("They spoke.", "Interested")
    assert transcript["history"] == [
        {"role": "agent", "content": "Hello? \N{BLACK HEART SUIT} नमस्ते", "start": 0.5, "end": 1.25},
        {"role": "customer", "content": 'Yes, "I" do', "start": 1.5, "end": 2.0},
    ]
    for instant in (transcript["createdAt"], transcript["updatedAt"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", instant)


async def test_transcript_failed(client: httpx.AsyncClient, db: Database, user: User) -> None:
    headers = await bearer(client, user)
    call_id = await create(client, headers)
    async with db.transaction() as session:
        await transcripts.fail(session, call_id, "The call was not answered")
    answer = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    data = data_of(answer, "Transcript processing failed")
    assert data == {
        "call_id": call_id,
        "transcript_status": "failed",
        "transcript": None,
        "error": "The call was not answered",
    }


async def test_another_users_call_and_no_call(client: httpx.AsyncClient, db: Database, user: User) -> None:
    call_id = await create(client, await bearer(client, user))
    stranger = await bearer(client, await new_user(db))
    assert error_of(await client.get(f"/api/developer/calls/{call_id}/transcript", headers=stranger), 403)
    for unknown in ("call_0000000000000000", "x", "call_%00", "%ff%fe", "call_" + "a" * 5000, "%E2%98%83"):
        answer = await client.get(f"/api/developer/calls/{unknown}/transcript", headers=stranger)
        assert error_of(answer, 404) == "Call not found"


# The rest


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    error_of(await client.get("/api/developer/nothing"), 404)
    error_of(await client.get("/api/developer/login/"), 404)
    answer = await client.get("/api/developer/login")
    error_of(answer, 405)
    assert answer.headers["Allow"] == "POST"


async def test_many_at_once_get_calls_of_their_own(client: httpx.AsyncClient, user: User) -> None:
    headers = await bearer(client, user)
    created = await asyncio.gather(*(create(client, headers) for _ in range(50)))
    assert len(set(created)) == 50


async def test_openapi_has_true_shapes_and_examples(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    post = document["paths"]["/api/developer/calls/click2call"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["customer_number", "agent_number"]
    assert body["properties"]["customer_number"]["examples"] == ["919999999999"]
    assert post["security"]
    assert (await client.get("/docs")).status_code == 200


async def test_health(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == [
        "no live calls worker: start `ringback worker calls`",
        "no live callbacks worker: start `ringback worker callbacks`",
        "no live transcripts worker: start `ringback worker transcripts`",
    ]
