"""Calls of the newest dialect, key by key, on the shipped application."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app import transcripts
from app.db import Database
from app.engine_models import Task
from app.models import Call, Did, User
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import PASSWORD, bearer, new_user
from tests.envelopes import data_of, error_of
from tests.integration.current_calls import (
    ALLOCATION,
    CREATE,
    CREATED,
    add_did,
    ended,
    happen,
    order,
    store,
    talk,
    transcribed,
)

# Login


async def test_login_and_refresh(client: httpx.AsyncClient, user: User) -> None:
    login = data_of(
        await client.post("/api/login", json={"email": user.email, "password": PASSWORD}), "Login successful"
    )
    data = data_of(
        await client.post("/api/refresh_token", params={"refresh_token": login["refresh_token"]}),
        "Token refreshed successfully",
    )
    assert data["refresh_token"] == login["refresh_token"]
    error_of(await client.post("/api/login", json={"email": user.email, "password": "wrong"}), 400)
    assert "password" in error_of(await client.post("/api/login", json={"email": user.email}), 422)
    assert "refresh_token" in error_of(await client.post("/api/refresh_token"), 422)
    error_of(await client.post("/api/refresh_token", params={"refresh_token": "x"}), 400)


# Create


async def test_create_answers_with_all_its_keys(client: httpx.AsyncClient, headers: Any, did: Did) -> None:
    body = order(did, callback_url="https://crm.example.com/hook?a=1", transcript=True, transcript_language="hi")
    data = data_of(await client.post(CREATE, json=body, headers=headers), CREATED)
    assert re.fullmatch(r"call_[0-9a-z]{16}", data.pop("call_id"))
    assert data == {
        "status": "queued",
        "did": did.number,
        "callback_url": "https://crm.example.com/hook?a=1",
        "transcript": True,
        "transcript_language": "hi",
        "warning": "No channels allocated for this DID; call accepted|Client channel pool exhausted; call accepted",
    }


async def test_create_defaults(client: httpx.AsyncClient, db: Database, headers: Any, did: Did) -> None:
    body = order(did, callback_url=None, transcript=None, transcript_language=None)
    data = data_of(await client.post(CREATE, json=body, headers=headers), CREATED)
    assert (data["callback_url"], data["transcript"], data["transcript_language"]) == (None, False, None)
    shown = data_of(
        await client.get(f"/api/calls/{data['call_id']}/transcript", headers=headers), "Transcript not available yet"
    )
    assert shown["transcript_status"] == "disabled"


@pytest.mark.parametrize("written", [lambda n: n, lambda n: n[2:], lambda n: f"0{n[2:]}", lambda n: f" +{n} "])
async def test_a_did_is_found_however_it_is_written_and_repeated_as_sent(
    client: httpx.AsyncClient, headers: Any, did: Did, written: Any
) -> None:
    sent = written(did.number)
    answer = await client.post(CREATE, json={**order(did), "did": sent}, headers=headers)
    data = data_of(answer, CREATED)
    assert data["did"] == sent
    listed = await client.get("/api/calls/recent", params={"did": sent}, headers=headers)
    (call,) = listed.json()["data"]["calls"]
    assert (call["call_id"], call["did"]) == (data["call_id"], did.number)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"did": None}, "did"),
        ({"customer_number": "12"}, "customer_number"),
        ({"agent_number": "hello"}, "agent_number"),
        ({"callback_url": "ftp://a.example"}, "callback_url"),
        ({"callback_url": "crm.example.com"}, "callback_url"),
        ({"transcript": "perhaps"}, "transcript"),
        ({"transcript_language": "\0"}, "transcript_language"),
    ],
)
async def test_create_refuses(
    client: httpx.AsyncClient, headers: Any, did: Did, change: dict[str, Any], said: str
) -> None:
    assert said in error_of(await client.post(CREATE, json={**order(did), **change}, headers=headers), 422)


async def test_create_refuses_numbers_that_are_not_there_or_not_mine(
    client: httpx.AsyncClient, db: Database, headers: Any
) -> None:
    other = await add_did(db, await new_user(db))
    expired = await add_did(db, None)
    nobodys = await add_did(db, None)
    error_of(await client.post(CREATE, json={**order(None), "did": "910000000000"}, headers=headers), 404)
    error_of(await client.post(CREATE, json=order(other), headers=headers), 403)
    error_of(await client.post(CREATE, json=order(nobodys), headers=headers), 403)
    me = (await client.get("/api/mobile-numbers", headers=headers)).json()["data"]["user_id"]
    async with db.transaction() as session:
        values = {"user_id": me, "expired_at": datetime.now(UTC)}
        await session.execute(update(Did).where(Did.id == expired.id).values(**values))
    assert "expired" in error_of(await client.post(CREATE, json=order(expired), headers=headers), 409)


async def test_voice_agents_are_not_found(client: httpx.AsyncClient, headers: Any) -> None:
    body = {"customer_number": "919999999999", "agent_number": "AGT_1", "agent_config": {"name": "x"}}
    answer = await client.post(CREATE, json=body, headers=headers)
    assert answer.status_code == 404
    assert list(answer.json()) == ["detail", "request_id"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    ignored = {"did": "", "transcript_language": 1}
    assert (await client.post(CREATE, json={**body, **ignored}, headers=headers)).status_code == 404


async def test_bearer_is_judged_first(client: httpx.AsyncClient, db: Database) -> None:
    for method, path in (
        ("POST", CREATE),
        ("GET", "/api/calls/recent?limit=x"),
        ("GET", "/api/calls/nothing/transcript"),
        ("POST", "/api/calls/nothing/transcript/retry"),
        ("GET", "/api/mobile-numbers"),
        ("GET", ALLOCATION),
        ("PUT", ALLOCATION),
        ("PATCH", ALLOCATION),
        ("GET", f"{ALLOCATION}/utilization"),
        ("POST", "/api/calls/inbound-callback-url"),
        ("GET", "/api/calls/inbound-callback-url"),
    ):
        answer = await client.request(method, path, content=b"{")
        assert answer.status_code == 401, (method, path, answer.text)
        assert answer.json() == {"detail": "Could not validate credentials"}
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_developer_takes_the_same_options_and_shows_what_was_sent(
    client: httpx.AsyncClient, db: Database, headers: Any, did: Did
) -> None:
    body = order(did, callback_url="https://crm.example.com/", transcript=False)
    data = data_of(await client.post("/api/developer/calls/click2call", json=body, headers=headers), CREATED)
    assert list(data) == ["call_id", "status", "did", "callback_url", "transcript"]
    bare = order(None, transcript_language=None)
    data = data_of(await client.post("/api/developer/calls/click2call", json=bare, headers=headers), CREATED)
    assert list(data) == ["call_id", "status", "transcript_language"]
    wrong = order(None, callback_url="nowhere")
    error_of(await client.post("/api/developer/calls/click2call", json=wrong, headers=headers), 400)


# Transcript and recording


async def test_transcript_is_masked_and_has_its_recording(
    client: httpx.AsyncClient, db: Database, migrated: Settings, headers: Any, did: Did
) -> None:
    call_id = data_of(await client.post(CREATE, json=order(did, transcript=True), headers=headers), CREATED)["call_id"]
    path = f"/api/calls/{call_id}/transcript"
    data = data_of(await client.get(path, headers=headers), "Transcript not available yet")
    assert data == {
        "call_id": call_id,
        "transcript_status": "pending",
        "customer_number": "xxxxx9999999",
        "agent_number": "xxxxx8888888",
        "duration": None,
        "recording": "pending",
        "transcript": None,
    }
    await talk(db, call_id)
    data = data_of(await client.get(path, headers=headers), "Transcript not available yet")
    assert (data["recording"], data["duration"], data["hangup_cause"]) == ("pending", "42", "ANSWER")
    await store(db, migrated, call_id)
    await transcribed(db, call_id)
    data = data_of(await client.get(path, headers=headers), "Transcript found")
    assert list(data["transcript"]) == [
        "transcript_id",
        "summary",
        "call_outcome",
        "history",
        "createdAt",
        "updatedAt",
    ]
    assert data["transcript_status"] == "ready"

    link = httpx.URL(data["recording"])
    whole = await client.get(link.raw_path.decode())
    assert (whole.status_code, whole.content) == (200, b"RIFF and so on")
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["content-disposition"] == f'attachment; filename="{call_id}.wav"'
    part = await client.get(link.raw_path.decode(), headers={"Range": "bytes=5-7"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"and", "bytes 5-7/14")
    tail = await client.get(link.raw_path.decode(), headers={"Range": "bytes=-2"})
    assert tail.content == b"on"
    for etag, expected in ((whole.headers["etag"], 206), ('"another"', 200)):
        since = {"Range": "bytes=4-7", "If-Range": etag}
        assert (await client.get(link.raw_path.decode(), headers=since)).status_code == expected
    beyond = await client.get(link.raw_path.decode(), headers={"Range": "bytes=99-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */14")
    head = await client.head(link.raw_path.decode())
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "14", b"")


async def test_a_recording_link_opens_nothing_else(
    client: httpx.AsyncClient, app: Any, db: Database, migrated: Settings, user: User, headers: Any, did: Did
) -> None:
    ids = []
    for _ in range(2):
        call_id = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["call_id"]
        await talk(db, call_id)
        await store(db, migrated, call_id)
        ids.append(call_id)
    links = app.state.resources.links
    later = datetime.now(UTC) + timedelta(seconds=60)

    async def status(url: str) -> int:
        return (await client.get(httpx.URL(url).raw_path.decode())).status_code

    good = links.make(ids[0], user.id, later)
    assert await status(good) == 200
    assert await status(good.replace(ids[0], ids[1])) == 404
    assert await status(good.replace("expires=", "expires=1")) == 404
    assert await status(good[:-1] + ("0" if good[-1] != "0" else "1")) == 404
    assert await status(links.make(ids[0], "USR_00000000", later)) == 404
    assert await status(links.make(ids[0], user.id, datetime.now(UTC) - timedelta(seconds=1))) == 404
    assert (await client.get(f"/api/recordings/{ids[0]}", headers=headers)).status_code == 422


async def test_other_peoples_calls(client: httpx.AsyncClient, db: Database, headers: Any, did: Did) -> None:
    call_id = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["call_id"]
    stranger = await bearer(client, await new_user(db))
    for path in (f"/api/calls/{call_id}/transcript",):
        error_of(await client.get(path, headers=stranger), 403)
        error_of(await client.post(f"{path}/retry", headers=stranger), 403)
    error_of(await client.get("/api/calls/call_0000000000000000/transcript", headers=headers), 404)
    error_of(await client.get("/api/calls/x/transcript", headers=headers), 404)


async def test_retry(client: httpx.AsyncClient, db: Database, migrated: Settings, headers: Any, did: Did) -> None:
    async def new(*, transcript: bool = True) -> str:
        answer = await client.post(CREATE, json=order(did, transcript=transcript), headers=headers)
        return str(data_of(answer, CREATED)["call_id"])

    async def retry(call_id: str) -> httpx.Response:
        return await client.post(f"/api/calls/{call_id}/transcript/retry", headers=headers)

    assert "disabled" in error_of(await retry(await new(transcript=False)), 409)
    call_id = await new()
    assert "recording" in error_of(await retry(call_id), 409)
    await talk(db, call_id)
    await store(db, migrated, call_id)
    async with db.transaction() as session:
        await transcripts.fail(session, call_id, "The engine was away")
        for task in await session.scalars(select(Task).filter_by(call_id=call_id, kind="transcribe")):
            await session.delete(task)
    data = data_of(await retry(call_id), "Transcript retry queued")
    assert list(data) == ["call_id", "transcript_status", "status", "recording"]
    assert (data["transcript_status"], data["status"]) == ("pending", "Answered")
    async with db.transaction() as session:
        assert len(list(await session.scalars(select(Task).filter_by(call_id=call_id, kind="transcribe")))) == 1
    data_of(await retry(call_id), "Transcript retry queued")
    async with db.transaction() as session:
        assert len(list(await session.scalars(select(Task).filter_by(call_id=call_id, kind="transcribe")))) == 1
        assert await transcripts.start(session, call_id)
    assert "processed" in error_of(await retry(call_id), 409)
    await transcribed(db, call_id)
    assert "ready" in error_of(await retry(call_id), 409)


# Recent


async def test_recent(client: httpx.AsyncClient, db: Database, migrated: Settings, headers: Any, did: Did) -> None:
    path = "/api/calls/recent"
    ids = []
    for n in range(3):
        body = order(did, transcript=n > 0, customer_number=f"91999999999{n}")
        ids.append(data_of(await client.post(CREATE, json=body, headers=headers), CREATED)["call_id"])
    await talk(db, ids[0])
    await happen(db, ids[1], CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC)))
    await store(db, migrated, ids[0])

    async def listed(**params: Any) -> dict[str, Any]:
        return data_of(await client.get(path, params=params, headers=headers), "Recent call logs fetched")

    data = await listed()
    assert list(data) == ["total", "page", "limit", "has_more", "filters", "calls"]
    assert data["filters"] == dict.fromkeys(
        (
            "status",
            "call_type",
            "transcript_status",
            "customer_number",
            "agent_number",
            "did",
            "date_from",
            "date_to",
        )
    )
    assert [call["call_id"] for call in data["calls"]] == ids[::-1]
    oldest = data["calls"][-1]
    assert list(oldest) == [
        "call_id",
        "status",
        "customer_number",
        "agent_number",
        "did",
        "duration",
        "answer_duration",
        "hangup_cause",
        "call_type",
        "transcript_enabled",
        "transcript_status",
        "recording",
        "recording_url",
        "transcript",
        "created_at",
        "updated_at",
    ]
    assert (oldest["status"], oldest["duration"], oldest["answer_duration"]) == ("Answered", "42", "30")
    assert oldest["customer_number"] == "919999999990", "not masked here"
    assert oldest["transcript_enabled"] is False
    assert oldest["recording_url"].startswith("http")
    for params, expected in (
        ({"status": "answered"}, [0]),
        ({"status": "NOANSWERED"}, [1]),
        ({"status": "queued"}, [2]),
        ({"status": "no such"}, []),
        ({"transcript_status": "disabled"}, [0]),
        ({"transcript_status": "pending"}, [2]),
        ({"call_type": "C2C"}, [2, 1, 0]),
        ({"call_type": "inbound"}, []),
        ({"customer_number": "9991"}, [1]),
        ({"customer_number": "%"}, []),
        ({"agent_number": "8888"}, [2, 1, 0]),
        ({"did": did.number[4:]}, [2, 1, 0]),
        ({"date_from": oldest["created_at"], "date_to": oldest["created_at"][:10]}, [2, 1, 0]),
        ({"date_to": oldest["created_at"]}, None),
        ({"date_from": "2999-01-01T00:00:00Z"}, []),
        ({"date_to": "2001-01-01"}, []),
        ({"date_to": "9999-12-31"}, [2, 1, 0]),
        ({"date_to": oldest["created_at"][:10].replace("-", "")}, [2, 1, 0]),
        ({"date_from": "2001-01-01T05:30:00 05:30"}, [2, 1, 0]),
        ({"customer_number": "+919999999991"}, [1]),
        ({"limit": 2, "page": 2}, [0]),
        ({"limit": 2, "page": 9}, []),
    ):
        found = await listed(**params)
        if expected is not None:
            assert [ids.index(call["call_id"]) for call in found["calls"]] == expected, params
        else:
            assert ids[0] in [call["call_id"] for call in found["calls"]], "inclusive"
        assert {key: value for key, value in found["filters"].items() if value is not None} == {
            key: value for key, value in params.items() if key not in ("limit", "page")
        }
    assert (await listed(did="+"))["total"] == 3
    blank = await listed(status="", date_from="", did="")
    assert (blank["total"], set(blank["filters"].values())) == (3, {None})
    assert (await listed(limit=2))["has_more"] is True
    assert (await listed(limit=3))["has_more"] is False
    for wrong in ({"limit": 0}, {"limit": 201}, {"page": 0}, {"date_from": "soon"}, {"did": "\0"}, {"limit": "x"}):
        error_of(await client.get(path, params=wrong, headers=headers), 422)


async def test_a_provider_that_counts_the_talk_is_believed(
    client: httpx.AsyncClient, db: Database, headers: Any, did: Did
) -> None:
    call_id = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["call_id"]
    began = datetime.now(UTC)
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="dialing", dialed_at=began))
    answered = CallEvent("answered", CallStatus.IN_PROGRESS, began + timedelta(seconds=2))
    over = CallEvent("ended", CallStatus.COMPLETED, began + timedelta(seconds=3), talk_seconds=13.7)
    await happen(db, call_id, answered, over)
    (shown,) = (await client.get("/api/calls/recent", headers=headers)).json()["data"]["calls"]
    assert (shown["answer_duration"], shown["duration"]) == ("13", "15")


async def test_statuses_are_the_vendors(client: httpx.AsyncClient, db: Database, headers: Any, did: Did) -> None:
    for status, shown, cause in (
        (CallStatus.BUSY, "NoAnswered", "BUSY"),
        (CallStatus.NO_ANSWER, "NoAnswered", "NOANSWER"),
        (CallStatus.FAILED, "failed", "FAILED"),
        (CallStatus.TIMED_OUT, "temporaryfailed", "TIMEOUT"),
        (CallStatus.AFTER_HOURS, "afthrs", "AFTERHOURS"),
        (CallStatus.ENDED, "completed", None),
    ):
        call_id = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["call_id"]
        async with db.transaction() as session:
            await session.execute(update(Call).where(Call.id == call_id).values(status="dialing"))
        await happen(db, call_id, ended(status, recording=False))
        newest = (await client.get("/api/calls/recent", headers=headers)).json()["data"]["calls"][0]
        assert (newest["call_id"], newest["status"], newest["hangup_cause"]) == (call_id, shown, cause)
        assert newest["recording"] is None
