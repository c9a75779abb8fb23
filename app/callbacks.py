"""Callbacks: what clients are sent about their calls.

A delivery is written in the transaction of the change that it reports. So each committed change is delivered, and no
other. One `deliver` task per call sends its deliveries in order, each until its receiver accepts it or the schedule
ends. A message's id and content are the same in every attempt, so that receivers can drop a repeated one.

The caller holds the call's lock (`app.tasks`). The lock keeps the deliveries in order, and no delivery is added while
the task decides that it is done.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_views, changes, tasks, vendor
from app.call_views import CallView
from app.engine_models import TaskKind
from app.models import Call, CallType, Delivery, DeliveryAttempt, DeliveryStatus, TranscriptStatus, User, WebhookSecret
from app.security import RecordingLinks

SCHEDULE_SECONDS: tuple[float, ...] = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)
"""The pause after each failed attempt. After the last one the delivery fails. As Standard Webhooks recommends."""

LONGEST_SECONDS = 1.2 * sum(SCHEDULE_SECONDS)
"""The longest time that the schedule takes, apart from what a receiver asks for with Retry-After."""

_LINK_SECONDS = 1.2 * len(SCHEDULE_SECONDS) * max(SCHEDULE_SECONDS) + 86400
"""A link in a callback works for a day after the last attempt, even if the receiver asked for the longest pauses."""

STORED = "stored"
"""Placeholder in a body for the link to the recording. The link is made when the message is sent, and is always the
same."""


async def notify_end(session: AsyncSession, call_id: str) -> None:
    """Notify the client that the call has ended. For an inbound call, `notify_recording` does it."""
    call = await _find_notified_call(session, call_id)
    if call is None or (call.call_type == CallType.INBOUND and call.recording_pending):
        return
    event = vendor.EVENT[call.status]
    await _add_delivery(session, call, event)
    if event in ("call.answered", "call.not_answered") and await _is_compatible(session, call.user_id):
        await _add_delivery(session, call, "call.completed")
    await _notify_disabled(session, call)


async def notify_recording(session: AsyncSession, call_id: str) -> None:
    """Notify the client that the recording is stored, or that there is none."""
    call = await _find_notified_call(session, call_id)
    if call is None:
        return
    if call.call_type == CallType.INBOUND:
        await notify_end(session, call_id)
    else:
        await _notify_disabled(session, call)


async def _notify_disabled(session: AsyncSession, call: CallView) -> None:
    """Notify the client that there is no transcript, because none was ordered. It is the last callback, so it waits for
    the recording."""
    if call.transcript_status == TranscriptStatus.DISABLED and not call.recording_pending:
        await _add_delivery(session, call, "transcript.disabled")


async def notify_transcript(session: AsyncSession, call_id: str) -> None:
    """Notify the client that the transcript is ready or has failed."""
    call = await _find_notified_call(session, call_id)
    if call is not None:
        await _add_delivery(session, call, f"transcript.{call.transcript_status}")


async def _find_notified_call(session: AsyncSession, call_id: str) -> CallView | None:
    """The call, if its client receives callbacks."""
    await session.flush()
    if await session.scalar(select(Call.callback_url).where(Call.id == call_id)) is None:
        return None
    return await call_views.find(session, call_id)


async def _is_compatible(session: AsyncSession, user_id: str) -> bool:
    return bool(await session.scalar(select(User.compat_callbacks).where(User.id == user_id)))


async def _add_delivery(session: AsyncSession, call: CallView, event: str) -> None:
    adding = (
        insert(Delivery)
        .values(
            message_id=f"msg_{secrets.token_hex(12)}",
            user_id=call.user_id,
            call_id=call.id,
            event=event,
            round=call.transcript_round if event.startswith("transcript.") else 0,
            url=call.callback_url,
            body=_body(call, event, compatible=await _is_compatible(session, call.user_id)),
        )
        .on_conflict_do_nothing(index_elements=["call_id", "event", "round"])
        .returning(Delivery.id)
    )
    if await session.scalar(adding) is not None:
        await tasks.add(session, TaskKind.DELIVER, call.id)


def _body(call: CallView, event: str, *, compatible: bool) -> dict[str, Any]:
    recording = STORED if call.has_recording else "pending" if call.recording_pending else None
    shown = vendor.call_transcript(call, recording)
    data = shown.model_dump(mode="json")
    if compatible:
        transcript = shown.transcript
        data |= {
            "recording_url": STORED if call.has_recording else None,
            "summary": transcript and transcript.summary,
            "outcome": transcript and transcript.call_outcome,
            "end_time": call.ended_at and call.ended_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if transcript is not None:
            data["transcript"]["utterances"] = [
                {"speaker": turn.role, "transcript": turn.content} for turn in transcript.history
            ]
    if call.fields is not None and shown.transcript is not None:  # only for a user who defined fields
        data["transcript"]["fields"] = call.fields
    failed = event == "transcript.failed"
    return {
        "status_code": 500 if failed else 200,
        "message": vendor.MESSAGE[event],
        "error": shown.error if failed else None,
        "event": event,
        "data": data,
    }


@dataclass(frozen=True, slots=True)
class Message:
    """A callback to be sent now, with the secrets to sign it."""

    id: int
    message_id: str
    event: str
    url: str
    body: dict[str, Any]
    attempts: int
    began_at: datetime
    is_over: bool
    """The schedule has run out, no matter how many attempts were made."""
    secrets: Sequence[str]
    due_in: float
    """Seconds. Zero or less: now."""


async def find_next_message(session: AsyncSession, call_id: str, links: RecordingLinks) -> Message | None:
    """The oldest delivery of the call that is still pending."""
    due_in = func.extract("epoch", Delivery.next_attempt_at - func.now()).label("due_in")
    is_over = (Delivery.began_at < func.now() - timedelta(seconds=LONGEST_SECONDS)).label("is_over")
    query = select(Delivery, due_in, is_over).where(
        Delivery.call_id == call_id, Delivery.status == DeliveryStatus.PENDING
    )
    row = (await session.execute(query.order_by(Delivery.id).limit(1))).one_or_none()
    if row is None:
        return None
    delivery: Delivery = row.Delivery
    return Message(
        delivery.id,
        delivery.message_id,
        delivery.event,
        delivery.url,
        _with_links(delivery, links),
        delivery.attempts,
        delivery.began_at,
        bool(row.is_over),
        await list_valid_secrets(session, delivery.user_id),
        float(row.due_in),
    )


def _with_links(delivery: Delivery, links: RecordingLinks) -> dict[str, Any]:
    data = dict(delivery.body["data"])
    for key in ("recording", "recording_url"):
        if data.get(key) == STORED:
            expires_at = delivery.created_at + timedelta(seconds=_LINK_SECONDS)
            data[key] = links.make(delivery.call_id, delivery.user_id, expires_at)
    return {**delivery.body, "data": data}


async def is_unchanged(session: AsyncSession, message: Message) -> bool:
    """Whether the delivery is as it was when the message was read. If it was replayed since, the result of that attempt
    does not count."""
    query = select(Delivery.attempts, Delivery.began_at).where(Delivery.id == message.id)
    row = (await session.execute(query)).one_or_none()
    return row is not None and (row.attempts, row.began_at) == (message.attempts, message.began_at)


async def add_attempt(
    session: AsyncSession, message: Message, call_id: str, *, succeeded: bool, answer: str, seconds: float
) -> None:
    """Keep an attempt, for whoever asks why a callback did not arrive."""
    changes.note(session, call_id)
    session.add(
        DeliveryAttempt(delivery_id=message.id, succeeded=succeeded, answer=answer, milliseconds=round(seconds * 1000))
    )


async def mark_delivered(session: AsyncSession, message: Message, answer: str) -> None:
    """The receiver accepted it."""
    await _end(session, message, DeliveryStatus.DELIVERED, answer)


async def mark_failed(session: AsyncSession, message: Message, answer: str, *, tried: bool) -> None:
    """The schedule is over, and the delivery failed. `tried`: an attempt was just made."""
    await _end(session, message, DeliveryStatus.FAILED, answer, tried=tried)


async def mark_receiver_gone(session: AsyncSession, message: Message, answer: str) -> None:
    """The receiver is gone for good: fail this delivery and every pending one of the call."""
    await _end(session, message, DeliveryStatus.FAILED, answer)
    call_id = select(Delivery.call_id).where(Delivery.id == message.id).scalar_subquery()
    await session.execute(
        update(Delivery)
        .where(Delivery.call_id == call_id, Delivery.status == DeliveryStatus.PENDING)
        .values(status=DeliveryStatus.FAILED, last_answer="Not sent: the receiver is gone (410)", ended_at=func.now())
    )


async def fail_all_pending(session: AsyncSession, answer: str) -> int:
    """Fail every pending delivery of all calls. Returns how many."""
    pending = update(Delivery).where(Delivery.status == DeliveryStatus.PENDING).returning(Delivery.id)
    failed = pending.values(status=DeliveryStatus.FAILED, last_answer=answer, ended_at=func.now())
    return len((await session.execute(failed)).all())


async def schedule_retry(session: AsyncSession, message: Message, answer: str, *, again_after: float) -> None:
    """The attempt failed. Try again in `again_after` seconds."""
    await session.execute(
        update(Delivery)
        .where(Delivery.id == message.id)
        .values(
            attempts=Delivery.attempts + 1,
            last_answer=answer,
            next_attempt_at=func.now() + timedelta(seconds=again_after),
        )
    )


async def _end(
    session: AsyncSession, message: Message, status: DeliveryStatus, answer: str, *, tried: bool = True
) -> None:
    await session.execute(
        update(Delivery)
        .where(Delivery.id == message.id)
        .values(status=status, attempts=message.attempts + tried, last_answer=answer, ended_at=func.now())
    )


async def list_deliveries(
    session: AsyncSession,
    *,
    limit: int | None = None,
    user_id: str | None = None,
    call_id: str | None = None,
    status: str | None = None,
) -> list[Delivery]:
    """Deliveries that pass the filters, newest first."""
    query = select(Delivery).order_by(Delivery.id.desc()).limit(limit)
    for column, wanted in (
        (Delivery.user_id, user_id),
        (Delivery.call_id, call_id),
        (Delivery.status, status),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return list(await session.scalars(query))


async def find_delivery(session: AsyncSession, message_id: str) -> Delivery | None:
    """The delivery with this webhook-id."""
    return (await session.scalars(select(Delivery).where(Delivery.message_id == message_id))).one_or_none()


async def replay(session: AsyncSession, delivery: Delivery) -> None:
    """Send it again as the same message, on a new schedule."""
    await tasks.lock_call(session, delivery.call_id)
    await reset(session, [delivery.id])
    await tasks.make_due(session, TaskKind.DELIVER, delivery.call_id)


async def reset(session: AsyncSession, delivery_ids: Sequence[int]) -> None:
    """Begin the schedule of these deliveries again. The caller holds the call's lock, and makes its task due."""
    again = update(Delivery).where(Delivery.id.in_(delivery_ids))
    await session.execute(
        again.values(
            status=DeliveryStatus.PENDING, attempts=0, began_at=func.now(), next_attempt_at=func.now(), ended_at=None
        )
    )


# Secrets


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


async def list_valid_secrets(session: AsyncSession, user_id: str) -> list[str]:
    """The secrets that sign the user's callbacks, newest first."""
    query = select(WebhookSecret.secret).where(
        WebhookSecret.user_id == user_id,
        or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > func.now()),
    )
    return list(await session.scalars(query.order_by(WebhookSecret.id.desc())))


async def create_secret(session: AsyncSession, user_id: str, *, overlap: timedelta = timedelta(0)) -> str:
    """Create a secret for the user. The previous one also signs for as long as `overlap`."""
    await session.execute(
        update(WebhookSecret)
        .where(WebhookSecret.user_id == user_id, WebhookSecret.expires_at.is_(None))
        .values(expires_at=func.now() + overlap)
    )
    secret = _new_secret()
    session.add(WebhookSecret(user_id=user_id, secret=secret))
    await session.flush()
    return secret
