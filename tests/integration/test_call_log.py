"""Reports of calls by other systems, on the shipped application."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from app import accounts, calls
from app.db import Database
from app.engine_models import Task
from app.main import create_app
from app.models import Call, RecordingRow, User
from app.providers import ENVIRONMENT
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import bearer, client_of, new_user
from tests.envelopes import data_of, error_of
from tests.integration.call_reports import LOG, PROVIDER, list_delivery_events, report, row, run, transcript
from tests.integration.call_runner import ScriptedProvider
from tests.integration.current_calls import CREATE, CREATED, add_did, happen, order, store
from tests.integration.receiver import Receiver, listening
from worker.context import Context
from worker.runner import HANDLERS


@pytest.fixture
async def call_id(client: httpx.AsyncClient, db: Database, user: User) -> str:
    """A call of the user, whose callbacks nobody receives."""
    did = await add_did(db, user)
    body = order(did, transcript=True, callback_url="http://127.0.0.1:1/")
    answer = await client.post(CREATE, json=body, headers=await bearer(client, user))
    return str(data_of(answer, CREATED)["call_id"])


# Who may report


async def test_without_credentials(client: httpx.AsyncClient) -> None:
    assert error_of(await client.post(LOG, content=b"nothing at all"), 401).startswith("Missing auth")


async def test_every_way_to_log_in(client: httpx.AsyncClient, db: Database, user: User, call_id: str) -> None:
    body = {"customer_number": "919999999999", "status": "ringing", "customer_crm_id": call_id}
    async with db.transaction() as session:
        key = await accounts.create_api_key(session, user)
    token = await bearer(client, user)
    ways: list[dict[str, Any]] = [
        {"headers": PROVIDER},
        {"auth": ("greeter", "a provider's")},
        {"params": {"auth_user": "greeter", "auth_pass": "a provider's"}},
        {"headers": {"X-API-Key": key}},
        {"headers": token},
    ]
    for way in ways:
        data_of(await client.post(LOG, json=body, **way), "Call log stored")
    wrong: list[dict[str, Any]] = [
        {"headers": {**PROVIDER, "X-Greeter-Password": "x"}},
        {"auth": ("greeter", "x")},
        {"auth": ("x", "a provider's")},
        {"headers": {"Authorization": "Basic !"}},
        {"params": {"auth_user": "greeter"}},
        {"headers": {"X-API-Key": "x"}},
    ]
    for way in wrong:
        error_of(await client.post(LOG, json=body, **way), 401)
    answer = await client.post(LOG, json=body, headers={"Authorization": "Bearer x"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Could not validate credentials"})


async def test_guessing_the_providers_password_is_slowed_down(client: httpx.AsyncClient) -> None:
    for n in range(5):
        error_of(await client.post(LOG, json={}, auth=("guess", str(n))), 401)
    answer = await client.post(LOG, json={}, auth=("guess", "another"))
    assert int(answer.headers["retry-after"]) > 0
    error_of(answer, 429)
    error_of(await client.post(LOG, json={}, headers=PROVIDER), 422)  # another name is not refused because of it


async def test_a_user_reports_their_own_calls_only(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    stranger = await new_user(db)
    body = {"customer_number": "919999999999", "status": "Answered", "customer_crm_id": call_id}
    error_of(await client.post(LOG, json=body, headers=await bearer(client, stranger)), 403)
    async with db.transaction() as session:
        key = await accounts.create_api_key(session, stranger)
    error_of(await client.post(LOG, json=body, headers={"X-API-Key": key}), 403)
    assert (await row(db, call_id)).status == "queued"
    async with db.transaction() as session:
        assert await accounts.revoke_api_key(session, key[:12])
    error_of(await client.post(LOG, json=body, headers={"X-API-Key": key}), 401)


# What a report may look like


@pytest.mark.parametrize("kind", ["json", "urlencoded", "multipart"])
async def test_content_types_and_spellings(client: httpx.AsyncClient, db: Database, call_id: str, kind: str) -> None:
    fields = {
        "Customer Number": "+919999999999",
        "STATUS": "NoAnswered",
        "agen_number": "918888888888",
        "Virtual Number": "911140000001",
        "CustomerCrmId": call_id,
        "hangup_Cause": "noanswer",
        "Duration": "00:01:05",
        "answer duration": "",
        "Agent Number": "",
        "did": "-",
        "recording": "null",
        "unknown": "x",
    }
    contents: dict[str, dict[str, Any]] = {
        "json": {"json": fields},
        "urlencoded": {"data": fields},
        "multipart": {"files": {key: (None, value) for key, value in fields.items()}},
    }
    content = contents[kind]
    data = data_of(await client.post(LOG, headers=PROVIDER, **content), "Call log stored")
    assert data == {"call_id": call_id, "status": "NoAnswered", "recording": None}
    call = await row(db, call_id)
    assert (call.status, call.hangup_cause, call.reported_seconds) == ("no_answer", "NOANSWER", 65)
    assert (call.agent_number, call.recording_url) == ("918888888888", None)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"status": NaN}', "application/json", 422),
        (b"x", "text/plain", 400),
        (b"x", "multipart/form-data; boundary=a", 400),
        (b"x", "multipart/form-data", 400),
        (b"{}", "application/json", 422),
        (b'{"customer_number": "919999999999"}', "application/json", 422),
        (b'{"status": "Answered"}', "application/json", 422),
        (b'{"customer_number": "1", "status": "Answered"}', "application/json", 422),
        (b'{"customer_number": "919999999999", "status": "Answered"}', "application/json", 422),
        (b'{"customer_number": "919999999999", "status": "x", "recording": "file:///x"}', "application/json", 422),
        (b'{"customer_number": "919999999999", "status": "x", "duration": "soon"}', "application/json", 422),
        (b'{"customer_number": "919999999999", "status": "x", "duration": 9999999999}', "application/json", 422),
        (b'{"customer_number": "919999999999", "status": "x", "duration": {}}', "application/json", 422),
        (
            b'{"customer_number": "919999999999", "status": "x", "customer_crm_id": "no\\u0000"}',
            "application/json",
            422,
        ),
        (b'{"customer_number": "919999999999", "status": "x", "customer_crm_id": "nobody"}', "application/json", 404),
    ],
)
async def test_what_cannot_be_read(client: httpx.AsyncClient, content: bytes, kind: str, status: int) -> None:
    error_of(await client.post(LOG, content=content, headers={**PROVIDER, "Content-Type": kind}), status)


# What a report changes


async def test_the_first_end_counts(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    assert (await report(client, status="initiated", customer_crm_id=call_id))["status"] == "queued"
    assert (await report(client, status="Busy", customer_crm_id=call_id))["status"] == "NoAnswered"
    assert (await report(client, status="Answered", customer_crm_id=call_id, duration=7))["status"] == "NoAnswered"
    assert await list_delivery_events(db, call_id) == ["call.not_answered", "transcript.failed"]
    assert await report(client, status="Busy", customer_crm_id=call_id, hangup_cause="cancel")
    call = await row(db, call_id)
    assert (call.reported_seconds, call.hangup_cause) == (7, "CANCEL"), "a repeat still updates the row"
    async with db.transaction() as session:  # our own provider comes too late
        answered = CallEvent("answered", CallStatus.IN_PROGRESS, datetime.now(UTC))
        await calls.apply_events(session, call_id, [answered], max_call_seconds=60)
    assert (await row(db, call_id)).status == "busy"


async def test_a_reported_call_is_not_dialed(context: Context, client: httpx.AsyncClient, call_id: str) -> None:
    await report(client, status="NoAnswered", customer_crm_id=call_id)
    await run(context, call_id, "dial")
    async with context.providers.use(ENVIRONMENT) as provider:
        assert isinstance(provider, ScriptedProvider)
        assert provider.orders == []


async def test_repeats_at_once_start_one_pipeline(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    same = {"status": "Answered", "customer_crm_id": call_id, "recording": "http://127.0.0.1:1/a.wav"}
    await asyncio.gather(*(report(client, **same) for _ in range(20)))
    async with db.transaction() as session:
        tasks = list(await session.scalars(select(Task.kind).filter_by(call_id=call_id, kind="fetch_recording")))
    assert len(tasks) == 1
    assert await list_delivery_events(db, call_id) == ["call.answered"]


async def test_a_late_report_corrects_a_call_that_timed_out(
    client: httpx.AsyncClient, db: Database, user: User, call_id: str
) -> None:
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="dialing", dialed_at=func.now()))
        silent = CallEvent("timed_out", CallStatus.TIMED_OUT, datetime.now(UTC))
        await calls.apply_events(session, call_id, [silent], max_call_seconds=60)
    assert await list_delivery_events(db, call_id) == ["call.temporaryfailed", "transcript.failed"]
    listed = await client.get("/api/calls/recent", headers=await bearer(client, user))
    assert listed.json()["data"]["calls"][0]["status"] == "temporaryfailed"
    answered = {"status": "Answered", "customer_crm_id": call_id, "recording": "http://127.0.0.1:1/a.wav"}
    assert (await report(client, **answered))["status"] == "Answered"
    assert await list_delivery_events(db, call_id) == ["call.temporaryfailed", "transcript.failed", "call.answered"]
    assert (await transcript(db, call_id)).status == "pending"


async def test_a_late_report_that_brings_no_recording_fails_no_transcript_twice(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="dialing", dialed_at=func.now()))
        silent = CallEvent("timed_out", CallStatus.TIMED_OUT, datetime.now(UTC))
        await calls.apply_events(session, call_id, [silent], max_call_seconds=60)
    await report(client, status="Busy", customer_crm_id=call_id)
    assert await list_delivery_events(db, call_id) == ["call.temporaryfailed", "transcript.failed", "call.not_answered"]
    made = await transcript(db, call_id)
    assert (made.status, made.failure) == ("failed", "The call was not answered: the line was busy")


async def test_a_disabled_transcript_is_reported_again_only_with_news(
    client: httpx.AsyncClient, db: Database, user: User, migrated: Settings
) -> None:
    """It comes with the recording. A correction of how the call ended brings no recording."""
    body = order(await add_did(db, user), transcript=False, callback_url="http://127.0.0.1:1/")
    created = await client.post(CREATE, json=body, headers=await bearer(client, user))
    call_id = str(data_of(created, CREATED)["call_id"])
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="dialing", dialed_at=func.now()))
    now = datetime.now(UTC)
    talked = CallEvent("answered", CallStatus.IN_PROGRESS, now)
    await happen(db, call_id, talked, CallEvent("timed_out", CallStatus.TIMED_OUT, now, has_recording=True))
    await store(db, migrated, call_id)
    assert await list_delivery_events(db, call_id) == ["call.temporaryfailed", "transcript.disabled"]
    await report(client, status="Answered", customer_crm_id=call_id)
    assert await list_delivery_events(db, call_id) == ["call.temporaryfailed", "transcript.disabled", "call.answered"]


async def test_a_recording_is_fetched_from_its_url(
    context: Context, client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    async with listening(Receiver(files={"/a.wav": b"RIFF"})) as server:
        url = f"http://127.0.0.1:{server.port}/a.wav"
        data = await report(client, status="Answered", customer_crm_id=call_id, recording=url)
        assert data["recording"] == url, "as it was reported"
        await run(context, call_id, "fetch_recording")
    async with db.transaction() as session:
        stored = await session.get_one(RecordingRow, call_id)
        kinds = set(await session.scalars(select(Task.kind).filter_by(call_id=call_id)))
    assert (stored.size_bytes, stored.content_type) == (4, "audio/wav")
    assert "transcribe" in kinds
    data = await report(client, status="Answered", customer_crm_id=call_id)
    assert data["recording"] == url, "who reports gets no link to what is stored here"


async def test_a_recording_that_is_reported_before_the_end_is_fetched(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    await report(client, status="ringing", customer_crm_id=call_id, recording="http://127.0.0.1:1/a.wav")
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == call_id).values(status="dialing", dialed_at=func.now()))
        silent = CallEvent("timed_out", CallStatus.TIMED_OUT, datetime.now(UTC))
        await calls.apply_events(session, call_id, [silent], max_call_seconds=60)
        fetch = select(Task.id).filter_by(call_id=call_id, kind="fetch_recording")
        assert await session.scalar(fetch) is not None
    assert (await transcript(db, call_id)).status == "pending"


async def test_a_recording_that_never_comes_ends_the_transcript(
    context: Context, client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    async with listening(Receiver()) as server:
        url = f"http://127.0.0.1:{server.port}/missing.wav"
        await report(client, status="Answered", customer_crm_id=call_id, recording=url)
        for _ in range(len(HANDLERS["fetch_recording"].delays) + 1):  # type: ignore[index]
            await run(context, call_id, "fetch_recording")
    made = await transcript(db, call_id)
    assert made.status == "failed"
    assert "404" in (made.failure or "")
    # The recording is there after all, and is reported again.
    async with listening(Receiver(files={"/late.wav": b"RIFF"})) as server:
        url = f"http://127.0.0.1:{server.port}/late.wav"
        await report(client, status="Answered", customer_crm_id=call_id, recording=url)
        await run(context, call_id, "fetch_recording")
    assert (await transcript(db, call_id)).status == "pending"


async def test_without_settings_no_provider_can_log_in(migrated: Settings) -> None:
    application = create_app(migrated.model_copy(update={"call_log_password": None}))
    async with application.router.lifespan_context(application), client_of(application) as client:
        assert "RINGBACK_CALL_LOG_USERNAME" in error_of(await client.post(LOG, json={}, headers=PROVIDER), 401)
