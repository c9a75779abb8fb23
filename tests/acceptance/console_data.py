"""Calls as a day has them, written into the database: for pictures, and for pages that need one of each kind."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app import dids
from app.models import Call, CallEventRow, Delivery, DeliveryAttempt, Did, RecordingRow, TranscriptRow, User
from app.telephony.simulator import CONVERSATIONS
from tests.acceptance.console_site import SAMPLE_USER, Site, get_user

INTERESTED, HINDI, LIVE, BUSY = (f"call_{name:0>16}" for name in ("interested", "hindi", "live", "busy"))
_SALES, _SUPPORT = "918047182299", "918047185500"
_HINDI = [
    ("agent", "नमस्ते, मैं ग्रीन गार्डन से सैम बोल रहा हूँ। क्या आपके पास एक मिनट है?", 0.5, 4.2),
    ("customer", "हाँ, बताइए। किस बारे में है?", 4.7, 6.6),
    ("agent", "हम हर हफ़्ते बगीचे की देखभाल का नया प्लान दे रहे हैं, सिर्फ़ बीस डॉलर में।", 7.0, 9.9),
    ("customer", "अच्छा लगा। मुझे आज ही पूरी जानकारी भेज दीजिए, शनिवार सुबह से शुरू कर सकते हैं।", 10.3, 13.9),
    ("agent", "बहुत बढ़िया, मैं अभी भेजता हूँ। धन्यवाद!", 14.2, 15.7),
]
_SUMMARIES = {
    "interested": "Sam offers a weekly garden plan for twenty dollars. The customer wants the details.",
    "callback": "The customer is busy and asks to be called again later.",
    "hindi": "The customer likes the weekly garden plan and asks for details today, to begin on Saturday morning.",
}


@dataclass(frozen=True)
class _Sample:
    """A call, how many minutes ago it was ordered, and how it ended."""

    name: str
    minutes: int
    customer: str
    status: str = "completed"
    did: str | None = None
    conversation: str | None = None
    outcome: str | None = None
    cause: str = "normal_clearing"
    failure: str | None = None


_CALLS = [
    _Sample("live", 1, "919820045671", "in_progress", _SALES),
    _Sample("interested", 4, "919820012345", did=_SALES, conversation="interested", outcome="Interested"),
    _Sample("busy", 9, "919845098450", "busy", cause="user_busy", failure="The customer's line is busy"),
    _Sample("callback", 15, "919811122233", did=_SUPPORT, conversation="callback", outcome="Callback requested"),
    _Sample("hindi", 22, "919890011223", did=_SALES, conversation="hindi", outcome="Interested"),
    _Sample("notinterested", 31, "919833344455", conversation="not_interested", outcome="Not interested"),
    _Sample("noanswer", 38, "919820099887", "no_answer", cause="no_answer", failure="The customer did not answer"),
    _Sample("voicemail", 44, "919867123450", did=_SUPPORT, conversation="voicemail", outcome="Voicemail"),
    _Sample(
        "notinservice",
        52,
        "919800000001",
        "failed",
        cause="unallocated_number",
        failure="The customer's number is not in service",
    ),
    _Sample("wrongnumber", 58, "919822233344", conversation="wrong_number", outcome="Wrong number"),
    _Sample("donotcall", 63, "919819988776", did=_SALES, conversation="do_not_call", outcome="Do not call"),
    _Sample("canceled", 70, "919844455566", "canceled", cause="originator_cancel"),
]


async def write_day(site: Site) -> None:
    """The calls, numbers and callbacks of one user. May be called again."""
    user = await get_user(site, SAMPLE_USER)
    async with site.db.transaction() as session:
        if await session.get(Call, INTERESTED) is not None:
            return
        owner = await session.get_one(User, user.id)
        await dids.set_pool(session, owner, 24)
        rented: dict[str, Did] = {}
        for number, label, most, allocated in ((_SALES, "Sales", 12, 8), (_SUPPORT, "Support", 8, 4)):
            rented[number] = Did(
                id=f"PN_{number[-10:]}",
                number=number,
                user_id=user.id,
                label=label,
                max_channels=most,
                allocated_channels=allocated,
            )
        session.add_all(rented.values())
        rented[_SALES].inbound_callback_url = "https://crm.example.com/ringback/incoming"
        await session.flush()
        for sample in _CALLS:
            await _write(site, session, user, sample, rented)
        await _write_callbacks(session, user)


async def _write(site: Site, session: AsyncSession, user: User, sample: _Sample, rented: dict[str, Did]) -> None:
    at = datetime.now(UTC) - timedelta(minutes=sample.minutes)
    ended = sample.status != "in_progress"
    answered = sample.status in ("completed", "in_progress")
    known = _conversation(sample)
    talk = known["duration"] if known else 0
    moments = [("queued", "queued", 0.0), ("dialing", "dialing", 0.08), ("agent:ringing", "ringing", 0.9)]
    if sample.status != "canceled":
        moments += [("agent:answered", "ringing", 5.2), ("customer:ringing", "ringing", 6.1)]
    if answered:
        moments.append(("answered", "in_progress", 12.4))
    if ended:
        moments.append(("ended", sample.status, 12.4 + talk if answered else 16.0))
    when = {key: at + timedelta(seconds=seconds) for key, _, seconds in moments}
    call_id = f"call_{sample.name:0>16}"
    did = rented.get(sample.did or "")
    call = Call(
        id=call_id,
        user_id=user.id,
        customer_number=sample.customer,
        agent_number="918888888888",
        did=sample.did,
        did_id=did.id if did else None,
        status=sample.status,
        hangup_cause=sample.cause if ended else None,
        ended_by="customer" if ended else None,
        failure=sample.failure,
        created_at=at,
        dialed_at=when["dialing"],
        rang_at=when["agent:ringing"],
        agent_answered_at=when.get("agent:answered"),
        answered_at=when.get("answered"),
        ended_at=when.get("ended"),
        reported_talk_seconds=round(talk) if ended and answered else None,
    )
    session.add(call)
    await session.flush()
    for key, status, _ in moments:
        cause = call.hangup_cause if key == "ended" else None
        detail = sample.failure if key == "ended" else None
        row = CallEventRow(call_id=call_id, key=key, status=status, happened_at=when[key], hangup_cause=cause)
        row.detail = detail
        session.add(row)
        await session.flush()  # in this order
    transcript = TranscriptRow(id=sha256(call_id.encode()).hexdigest()[:24], call_id=call_id, user_id=user.id)
    transcript.status = "ready" if known else "pending" if not ended else "disabled"
    transcript.created_at = at
    if known:
        transcript.history, transcript.outcome = known["turns"], sample.outcome
        transcript.summary = _SUMMARIES.get(sample.name, known["turns"][-1]["content"])
        transcript.engine, transcript.language = "whisper small", known["language"]
        session.add(_recording(site, call_id, "interested" if sample.name == "hindi" else str(sample.conversation)))
    session.add(transcript)


def _conversation(sample: _Sample) -> dict[str, Any] | None:
    if sample.conversation is None:
        return None
    if sample.conversation == "hindi":
        turns = [{"role": role, "content": text, "start": start, "end": end} for role, text, start, end in _HINDI]
        return {"turns": turns, "language": "hi", "duration": 16.33}
    known: dict[str, Any] = json.loads((CONVERSATIONS / f"{sample.conversation}.json").read_text())
    return known


def _recording(site: Site, call_id: str, conversation: str) -> RecordingRow:
    source, key = CONVERSATIONS / f"{conversation}.wav", f"recordings/{call_id}.wav"
    target = site.settings.data_dir / key
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    data = source.read_bytes()
    return RecordingRow(
        call_id=call_id,
        storage_key=key,
        content_type="audio/wav",
        size_bytes=len(data),
        sha256=sha256(data).hexdigest(),
    )


async def _write_callbacks(session: AsyncSession, user: User) -> None:
    answers = {
        "delivered": ["200 OK"],
        "failed": ["503 Service Unavailable", "503 Service Unavailable", "410 Gone"],
    }
    for place, (name, event, status) in enumerate(
        [
            ("donotcall", "call.answered", "delivered"),
            ("voicemail", "call.answered", "delivered"),
            ("callback", "call.answered", "delivered"),
            ("callback", "transcript.ready", "failed"),
            ("busy", "call.not_answered", "failed"),
            ("interested", "call.answered", "delivered"),
            ("interested", "transcript.ready", "delivered"),
        ]
    ):
        tried = answers[status]
        at = datetime.now(UTC) - timedelta(minutes=60 - 8 * place)
        delivery = Delivery(
            message_id=f"msg_{place:024}",
            user_id=user.id,
            call_id=f"call_{name:0>16}",
            event=event,
            round=0,
            url="https://crm.example.com/ringback",
            body={},
            status=status,
            attempts=len(tried),
            next_attempt_at=at,
            began_at=at,
            ended_at=at,
            last_answer=tried[-1],
        )
        session.add(delivery)
        await session.flush()  # it has an id
        session.add_all(
            DeliveryAttempt(
                delivery_id=delivery.id, succeeded=answer == "200 OK", answer=answer, milliseconds=84, ended_at=at
            )
            for answer in tried
        )
