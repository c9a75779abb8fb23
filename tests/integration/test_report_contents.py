"""Reports as other systems send them: odd fields, contradictions, several legs. What is usable is kept."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select

from app import retention
from app.db import Database
from app.engine_models import Task, TaskKind
from app.errors import Conflict
from app.models import CallEventRow, Did, User
from app.storage import FolderStorage
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import bearer
from tests.envelopes import data_of, error_of
from tests.integration.call_reports import LOG, PROVIDER, list_delivery_events, report, row, transcript
from tests.integration.current_calls import CREATE, CREATED, add_did, dial, happen, order, store, talk


@pytest.fixture
async def call_id(client: httpx.AsyncClient, headers: Any, did: Did) -> str:
    body = order(did, transcript=True, callback_url="http://127.0.0.1:1/")
    return str(data_of(await client.post(CREATE, json=body, headers=headers), CREATED)["call_id"])


async def notes(db: Database, call_id: str) -> str:
    async with db.transaction() as session:
        rows = await session.scalars(select(CallEventRow).filter_by(call_id=call_id).order_by(CallEventRow.id))
        return "\n".join(row.detail or "" for row in rows if row.key.startswith("note:"))


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("agent_number", "101", "101"),
        ("agent_number", "sip:7@pbx", None),
        ("duration", "83s", 83),
        ("duration", -1, None),
        ("duration", "soon", None),
        ("duration", {}, None),
        ("answer_duration", "00:01:23", 83),
        ("answer_duration", "1.5 min", 90),
        ("call_date", "yesterday, half past nine-ish", None),
        ("call_date", "0000-00-00 00:00:00", None),
        ("recording", "file:///etc/passwd", None),
        ("hangup_cause", "x" * 501, None),
        ("customer_crm_id", "CRM-4711", None),
        ("leg", "left", None),
    ],
)
async def test_one_odd_field_loses_no_report(
    client: httpx.AsyncClient, db: Database, did: Did, field: str, value: Any, shown: Any
) -> None:
    data = await report(client, status="Answered", did=did.number, **{field: value})
    call = await row(db, data["call_id"])
    column = {"duration": "reported_seconds", "answer_duration": "reported_talk_seconds"}.get(field, field)
    if hasattr(call, column):
        assert getattr(call, column) == shown
    assert call.status == "completed"
    noted = await notes(db, call.id)
    assert (field in noted) == (shown is None), noted
    if field in ("agent_number", "recording"):
        assert str(value) not in noted or shown, "numbers and links are not written down unmasked"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("https://a.example/rec/call 42 (in).wav", "https://a.example/rec/call%2042%20(in).wav"),
        ("https://a.example/Aufnahme ü.wav", "https://a.example/Aufnahme%20%C3%BC.wav"),
        ("https://a.example/r?sig=ab%2Fcd+e%20f==&x=~y", "https://a.example/r?sig=ab%2Fcd+e%20f==&x=~y"),
        ("https://a.example/{42}|a^b.wav?n=`c`", "https://a.example/{42}|a^b.wav?n=`c`"),
        ("https://münchen.example/a.wav", None),
    ],
)
async def test_a_link_is_escaped_where_no_url_could_hold_it(
    client: httpx.AsyncClient, db: Database, did: Did, sent: str, kept: str | None
) -> None:
    data = await report(client, status="Answered", did=did.number, recording=sent)
    assert (await row(db, data["call_id"])).recording_url == kept


async def test_a_customer_who_hides_their_number_is_known_by_the_call(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    data = await report(client, customer_number="anonymous", status="Answered", customer_crm_id=call_id)
    assert data["status"] == "Answered"
    assert (await row(db, call_id)).customer_number == "919999999999"
    assert "customer_number" in await notes(db, call_id)
    body = {"customer_number": "anonymous", "status": "Answered"}
    assert "customer_number" in error_of(await client.post(LOG, json=body, headers=PROVIDER), 422)
    without = {"status": "Answered", "customer_crm_id": call_id}
    assert "customer_number" in error_of(await client.post(LOG, json=without, headers=PROVIDER), 422)


async def test_a_crms_own_id_loses_no_report_of_whoever_is_known(client: httpx.AsyncClient, headers: Any) -> None:
    body = {"customer_number": "9876500002", "status": "Answered", "customer_crm_id": "CRM-4711"}
    data_of(await client.post(LOG, json=body, headers=headers), "Call log stored")
    error_of(await client.post(LOG, json=body, headers=PROVIDER), 404)


async def test_a_byte_order_mark_is_no_error(client: httpx.AsyncClient, headers: Any, did: Did) -> None:
    mark = b"\xef\xbb\xbf"
    body = mark + b'{"customer_number": "9876543210", "status": "Answered", "did": "%s"}' % did.number.encode()
    json_type = {"Content-Type": "application/json"}
    data_of(await client.post(LOG, content=body, headers={**PROVIDER, **json_type}), "Call log stored")
    form = mark + b"customer_number=9876543210&status=Answered&did=" + did.number.encode()
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    data_of(await client.post(LOG, content=form, headers={**PROVIDER, **form_type}), "Call log stored")
    created = mark + b'{"customer_number": "9876543210", "agent_number": "918888888888", "did": "%s"}'
    answer = await client.post(CREATE, content=created % did.number.encode(), headers={**headers, **json_type})
    data_of(answer, CREATED)


async def test_spellings_of_one_number_and_date_are_one_call(client: httpx.AsyncClient, did: Did) -> None:
    local = "9876500001"
    spelled = [
        (f"91{local}", did.number, "2026-11-20 10:15:30"),
        (f"0{local}", f"0{did.number[2:]}", "2026-11-20T10:15:30"),
        (f"+91 {local[:5]} {local[5:]}", did.number[2:], "20/11/2026 10:15:30"),
    ]
    ids = {
        (await report(client, customer_number=number, did=rented, call_date=date, status="Answered"))["call_id"]
        for number, rented, date in spelled
    }
    assert len(ids) == 1


@pytest.mark.parametrize("date", ["2026-11-20", "2026-11-20 00:00:00"])
async def test_two_calls_of_a_customer_on_one_day_stay_two(client: httpx.AsyncClient, did: Did, date: str) -> None:
    fields = {"did": did.number, "call_date": date, "status": "Answered"}
    first = await report(client, **fields, duration=60)
    assert (await report(client, **fields, duration=60))["call_id"] == first["call_id"], "a repeat"
    assert (await report(client, **fields, duration=75))["call_id"] != first["call_id"]


async def test_a_contradiction_is_noted_and_rubs_nothing_out(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    first = {"status": "Answered", "duration": 90, "answer_duration": 83, "hangup_cause": "ANSWER"}
    await report(client, customer_crm_id=call_id, **first)
    before = await list_delivery_events(db, call_id)
    contradicting = {"status": "NoAnswered", "duration": 0, "answer_duration": 0, "hangup_cause": "NOANSWER"}
    assert (await report(client, customer_crm_id=call_id, **contradicting))["status"] == "Answered"
    call = await row(db, call_id)
    assert (call.reported_seconds, call.reported_talk_seconds, call.hangup_cause) == (90, 83, "ANSWER")
    assert await list_delivery_events(db, call_id) == before
    noted = await notes(db, call_id)
    for part in ("Reported as no_answer", "Reported duration 0", "answer_duration 0", "hangup_cause NOANSWER"):
        assert part in noted
    await report(client, customer_crm_id=call_id, **contradicting)
    assert await notes(db, call_id) == noted, "the same is noted once"


async def test_a_report_that_contradicts_itself_or_the_order(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    await report(
        client, customer_crm_id=call_id, customer_number="919000000001", status="NoAnswered", answer_duration=83
    )
    noted = await notes(db, call_id)
    assert "another customer_number" in noted
    assert "answer_duration of 83 s" in noted
    assert "919000000001" not in noted


async def test_a_zero_is_filled_in_later(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    await report(client, customer_crm_id=call_id, status="Answered", duration=0, answer_duration=0)
    await report(client, customer_crm_id=call_id, status="Answered", duration=90, answer_duration=83)
    call = await row(db, call_id)
    assert (call.reported_seconds, call.reported_talk_seconds) == (90, 83)


async def test_whoever_was_seen_talking_was_answered(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    await talk(db, call_id)  # 30 s of it, which our own provider saw
    sent = {"customer_crm_id": call_id, "status": "Busy", "answer_duration": 0, "duration": 0}
    assert (await report(client, **sent))["status"] == "Answered"
    call = await row(db, call_id)
    assert (call.status, call.reported_talk_seconds, call.reported_seconds) == ("completed", None, None)
    assert "Reported answer_duration 0 s" in await notes(db, call_id)


async def test_a_report_ends_a_talk_that_is_up_as_answered(
    client: httpx.AsyncClient, db: Database, headers: Any, did: Did
) -> None:
    call_id = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["call_id"]
    ringing = await row(db, call_id)
    await dial(db, call_id)
    await happen(db, call_id, CallEvent("answered", CallStatus.IN_PROGRESS, ringing.created_at))
    assert (await report(client, customer_crm_id=call_id, status="NoAnswered"))["status"] == "Answered"
    assert "although both were talking" in await notes(db, call_id)


@pytest.mark.parametrize(
    ("word", "shown", "event"),
    [
        ("COMPLETED", "completed", "call.completed"),
        ("something new", "completed", "call.completed"),
        ("AfThRs", "afthrs", "call.not_answered"),
        ("answered", "Answered", "call.answered"),
        ("abandoned", "NoAnswered", "call.not_answered"),
        ("chanunavail", "failed", "call.failed"),
    ],
)
async def test_words_are_shown_and_sent_as_documented(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any, call_id: str, word: str, shown: str, event: str
) -> None:
    assert (await report(client, customer_crm_id=call_id, status=word))["status"] == shown
    assert await list_delivery_events(db, call_id) == [event, "transcript.failed"]
    assert f"“{word}”" in await notes(db, call_id)
    listed = await client.get("/api/calls/recent", params={"status": shown.upper()}, headers=headers)
    assert call_id in [call["call_id"] for call in listed.json()["data"]["calls"]]


async def test_the_agents_leg_is_not_the_call(client: httpx.AsyncClient, db: Database, call_id: str) -> None:
    """An exchange that reports each leg names the agent as the person who was called, or says which leg it means."""
    answered = {"customer_crm_id": call_id, "status": "completed", "answer_duration": 30}
    await report(client, **answered, customer_number="08888888888")
    await report(client, **answered, leg="A")
    call = await row(db, call_id)
    assert (call.status, call.reported_talk_seconds) == ("queued", None)
    assert (await report(client, customer_crm_id=call_id, status="Busy", leg="B"))["status"] == "NoAnswered"
    assert "of the agent's leg" in await notes(db, call_id)


async def test_the_first_report_of_an_agents_leg_names_the_agent(
    client: httpx.AsyncClient, db: Database, did: Did
) -> None:
    call_id = (await report(client, did=did.number, status="ringing"))["call_id"]
    leg = {"customer_number": "918888888888", "agent_number": "918888888888", "answer_duration": 30}
    await report(client, customer_crm_id=call_id, status="completed", **leg)
    call = await row(db, call_id)
    assert (call.agent_number, call.reported_talk_seconds, call.ended_at) == ("918888888888", None, None)
    assert "customer_number" not in await notes(db, call_id)


async def test_an_agent_who_does_not_answer_ends_the_call(
    client: httpx.AsyncClient, db: Database, call_id: str
) -> None:
    data = await report(client, customer_crm_id=call_id, status="no answer", customer_number="918888888888")
    assert data["status"] == "NoAnswered"


@pytest.mark.parametrize("word", ["NoAnswered", "Busy", "failed", "cancel", "afthrs"])
async def test_a_call_that_was_not_answered_has_no_transcript(
    client: httpx.AsyncClient, db: Database, headers: Any, call_id: str, migrated: Any, word: str
) -> None:
    """Systems attach a recording of ringing or of nothing. It is stored, and never transcribed."""
    url = "http://127.0.0.1:1/ringing.wav"
    await report(client, customer_crm_id=call_id, status=word, recording=url)
    await store(db, migrated, call_id)
    made = await transcript(db, call_id)
    assert made.status == "failed"
    assert "not answered" in (made.failure or "") or word in ("failed", "cancel", "afthrs")
    retried = await client.post(f"/api/calls/{call_id}/transcript/retry", headers=headers)
    error_of(retried, 409)
    await report(client, customer_crm_id=call_id, status=word, recording=f"{url}?again")
    assert (await transcript(db, call_id)).status == "failed"


async def test_a_user_can_be_erased_right_after_a_reported_call(
    client: httpx.AsyncClient, db: Database, user: User, did: Did, tmp_path: Path
) -> None:
    await report(client, status="NoAnswered", did=did.number)
    # A URL without a recording, which would be tried for an hour.
    await report(client, status="Answered", did=did.number, recording="http://127.0.0.1:1/a.wav")
    assert await retention.erase_user(db, FolderStorage(tmp_path), user) == 2


async def test_what_a_provider_may_have_recorded_is_cleared_up_before_its_user_is_erased(
    client: httpx.AsyncClient, db: Database, user: User, call_id: str, tmp_path: Path
) -> None:
    await report(client, customer_crm_id=call_id, status="Answered", recording="http://127.0.0.1:1/a.wav")
    async with db.transaction() as session:
        await session.execute(delete(Task).filter_by(call_id=call_id).where(Task.kind != TaskKind.FETCH_RECORDING))
    with pytest.raises(Conflict, match="being cleared up"):
        await retention.erase_user(db, FolderStorage(tmp_path), user)
    assert (await transcript(db, call_id)).status == "failed"
    async with db.transaction() as session:
        kinds = set(await session.scalars(select(Task.kind).filter_by(call_id=call_id)))
        assert TaskKind.HANGUP in kinds
        assert TaskKind.FETCH_RECORDING not in kinds
        await session.execute(delete(Task).filter_by(call_id=call_id))  # as a worker does
    assert await retention.erase_user(db, FolderStorage(tmp_path), user) == 1


async def test_the_same_did_of_nobody_is_still_refused(client: httpx.AsyncClient, db: Database) -> None:
    nobodys = await add_did(db, None)
    body = {"customer_number": "9876543210", "status": "Answered", "did": f"0{nobodys.number[2:]}"}
    assert "dids assign" in error_of(await client.post(LOG, json=body, headers=PROVIDER), 422)


async def test_own_reports_need_no_did(client: httpx.AsyncClient, user: User, db: Database) -> None:
    own = await bearer(client, user)
    body = {"customer_number": "9876543210", "status": "Answered", "did": "not one", "duration": "1m"}
    data = data_of(await client.post(LOG, json=body, headers=own), "Call log stored")
    call = await row(db, data["call_id"])
    assert (call.customer_number, call.did, call.reported_seconds) == ("919876543210", None, 60)
