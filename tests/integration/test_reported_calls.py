"""Calls that only reports describe, such as those that come in on a rented number."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import delete, func, select, update

from app.db import Database
from app.models import Call, Delivery, Did, User
from tests.conftest import bearer, new_user
from tests.envelopes import error_of
from tests.integration.call_reports import LOG, PROVIDER, list_delivery_events, report, row, run
from tests.integration.current_calls import add_did
from tests.integration.receiver import Receiver, listening
from worker.context import Context

SPELT = ("911234567890", "1234567890", "+911234567890")


async def test_an_inbound_call(context: Context, client: httpx.AsyncClient, db: Database, user: User) -> None:
    headers = await bearer(client, user)
    did: Did = await add_did(db, user)
    config = {"phone_number_id": did.id, "callback_url": "http://127.0.0.1:1/in", "transcript": True}
    await client.post("/api/calls/inbound-callback-url", json=config, headers=headers)
    async with listening(Receiver(files={"/in.wav": b"RIFF"})) as server:
        fields = {
            "status": "Answered",
            "did": did.number[2:],
            "call_type": "inbound",
            "call_date": "2026-03-05 10:00:00",
            "duration": "61",
            "answer_duration": 42,
            "recording": f"http://127.0.0.1:{server.port}/in.wav",
        }
        data = await report(client, **fields)
        assert (await report(client, **fields))["call_id"] == data["call_id"], "a repeat is no second call"
        assert (await report(client, **{**fields, "did": did.number}))["call_id"] == data["call_id"], "nor with its 91"
        other = await report(client, **{**fields, "call_date": "2026-03-05 11:00:00"})
        assert other["call_id"] != data["call_id"]
        call_id = data["call_id"]
        assert await list_delivery_events(db, call_id) == [], "sent only once its recording is stored"
        await run(context, call_id, "fetch_recording")
    assert await list_delivery_events(db, call_id) == ["call.answered"]
    shown = (await client.get("/api/calls/recent?call_type=inbound", headers=headers)).json()["data"]
    assert shown["total"] == 2
    mine = next(call for call in shown["calls"] if call["call_id"] == call_id)
    assert (mine["did"], mine["duration"], mine["answer_duration"]) == (did.number, "61", "42")
    assert (mine["agent_number"], mine["call_type"], mine["transcript_status"]) == (None, "inbound", "pending")
    async with db.transaction() as session:
        body = await session.scalar(select(Delivery.body).filter_by(call_id=call_id))
    assert json.dumps(body).count("xxxxx") == 1
    seed = await client.get(f"/api/developer/calls/{call_id}/transcript", headers=headers)
    assert seed.json()["data"]["transcript_status"] == "pending"


async def test_reports_without_a_date(client: httpx.AsyncClient, db: Database, user: User) -> None:
    did = await add_did(db, user)

    async def report_id(**fields: Any) -> str:
        return str((await report(client, did=did.number, call_type="inbound", **fields))["call_id"])

    async def age(call_id: str, **by: float) -> None:
        async with db.transaction() as session:
            ended = {"ended_at": Call.ended_at - timedelta(**by)}
            await session.execute(update(Call).where(Call.id == call_id).values(**ended))

    first = await report_id(status="ringing")
    assert await report_id(status="Answered", duration=60, recording="http://127.0.0.1:1/a.wav") == first, "it was live"
    assert await report_id(status="Answered", duration=60) == first, "a repeat"
    assert await report_id(status="completed") == first, "the end of a call that was answered"
    second = await report_id(status="Answered", duration=60, recording="http://127.0.0.1:1/b.wav")
    assert second != first, "another recording is of another call"
    await age(second, minutes=11)
    third = await report_id(status="NoAnswered")
    assert third not in (first, second), "a customer who calls again later is not a repeat"
    answered = await report_id(status="Answered", duration=60)
    assert answered not in (first, second, third), "nor is one whose call is taken now"
    await age(answered, minutes=11)
    async with db.transaction() as session:
        await session.execute(delete(Call).where(Call.id == answered))
    repeats = await asyncio.gather(*(report_id(status="NoAnswered") for _ in range(10)))
    assert set(repeats) == {third}
    other = await report(client, customer_number="918888888888", did=did.number, status="NoAnswered")
    assert other["call_id"] != third
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == third).values(status="timed_out"))
    await age(third, minutes=30)
    assert await report_id(status="NoAnswered") == third, "a late report of a call that timed out"


async def test_a_day_alone_tells_no_calls_apart(client: httpx.AsyncClient, db: Database, user: User) -> None:
    did = await add_did(db, user)
    fields = {"did": did.number, "call_type": "inbound ", "call_date": "2026-03-05", "status": "Answered"}
    first = await report(client, **fields, duration=60, recording="http://127.0.0.1:1/a.wav")
    assert (await report(client, **fields, duration=60))["call_id"] == first["call_id"], "a repeat"
    second = await report(client, **fields, duration=70, recording="http://127.0.0.1:1/b.wav")
    assert second["call_id"] != first["call_id"]
    assert (await row(db, second["call_id"])).call_type == "inbound", "blanks around a word mean nothing"


async def test_how_long_a_call_was_is_not_made_up(client: httpx.AsyncClient, db: Database, user: User) -> None:
    """The time of a report says nothing about it."""
    did = await add_did(db, user)
    fields = {"did": did.number, "call_type": "inbound", "status": "Answered"}
    for more in ({}, {"answer_duration": 42}, {"duration": 61, "answer_duration": 42}):
        data = await report(client, **fields, **more, call_date=f"2026-03-05 10:00:0{len(more)}")
        answer = await client.get("/api/calls/recent", headers=await bearer(client, user))
        (shown,) = [call for call in answer.json()["data"]["calls"] if call["call_id"] == data["call_id"]]
        expected = {"duration": None, "answer_duration": None} | {name: str(value) for name, value in more.items()}
        assert {name: shown[name] for name in expected} == expected


async def test_a_new_call_by_many_reports_at_once_is_one(client: httpx.AsyncClient, db: Database, user: User) -> None:
    did = await add_did(db, user)
    for more in ({}, {"call_date": "2026-03-05 10:00:00"}):
        fields = {"did": did.number, "call_type": "inbound", "status": "Answered", **more}
        assert (
            len({data["call_id"] for data in await asyncio.gather(*(report(client, **fields) for _ in range(20)))}) == 1
        )


async def test_an_inbound_call_that_nobody_took(client: httpx.AsyncClient, db: Database, user: User) -> None:
    did = await add_did(db, user)
    async with db.transaction() as session:
        where = {"inbound_callback_url": "http://127.0.0.1:1/in"}
        await session.execute(update(Did).where(Did.id == did.id).values(**where))
    data = await report(client, status="NoAnswered", did=did.number, call_type="inbound")
    assert await list_delivery_events(db, data["call_id"]) == ["call.not_answered", "transcript.disabled"]


async def test_an_inbound_call_without_an_end_times_out(
    context: Context, client: httpx.AsyncClient, db: Database, user: User
) -> None:
    did = await add_did(db, user)
    data = await report(client, status="ringing", did=did.number, call_type="inbound", call_date="now")
    assert data["status"] == "queued"
    await run(context, data["call_id"], "track")
    assert (await row(db, data["call_id"])).status == "dialing", "its time is not over"
    async with db.transaction() as session:
        await session.execute(update(Call).where(Call.id == data["call_id"]).values(expires_at=func.now()))
    await run(context, data["call_id"], "track")
    assert (await row(db, data["call_id"])).status == "timed_out"
    ended = await report(client, status="Busy", did=did.number, call_type="inbound", call_date="now")
    assert (ended["call_id"], ended["status"]) == (data["call_id"], "NoAnswered")


async def test_a_report_of_an_unknown_number(client: httpx.AsyncClient, db: Database, user: User) -> None:
    body = {"customer_number": "919999999999", "status": "Answered", "did": "911234567890"}
    assert "customer_crm_id or did" in error_of(await client.post(LOG, json=body, headers=PROVIDER), 422)
    nobodys = await add_did(db, None)
    error = error_of(await client.post(LOG, json={**body, "did": nobodys.number}, headers=PROVIDER), 422)
    assert "dids assign" in error
    foreign = await add_did(db, await new_user(db))
    own = await bearer(client, user)
    same = {(await client.post(LOG, json={**body, "did": n}, headers=own)).json()["data"]["call_id"] for n in SPELT}
    assert len(same) == 1
    mine = await bearer(client, user)
    error_of(await client.post(LOG, json={**body, "did": foreign.number}, headers=mine), 403)
