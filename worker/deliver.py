"""Send a call's callbacks in order. Each task sends one, and adds the task for the next."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks.webhooks import Webhook

from app import callbacks, calls, metrics, tasks, tracing
from app.callbacks import LONGEST_SECONDS, SCHEDULE_SECONDS, Message
from app.db import after_commit
from app.engine_models import TaskKind
from app.outbound import OutboundError, host_of
from app.tasks import ClaimedTask
from worker.context import Context

log = structlog.get_logger()

_JITTER = 0.2
_GONE = 410


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of one attempt. `text` is for a person."""

    text: str
    delivered: bool = False
    gone: bool = False
    tried: bool = True
    """False: there was no attempt, and there must not be another."""
    retry_after: float = 0.0
    seconds: float = 0.0
    """How long the attempt took."""


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        message = await callbacks.find_next_message(session, task.call_id, context.links)
    outcome, wait = None, 0.0
    if message is not None and message.due_in <= 0:
        outcome, wait = await _try(context, message)
    async with context.db.transaction() as session:
        await tasks.finish(session, task)
        if message is not None and outcome is not None and await callbacks.is_unchanged(session, message):
            await _save(session, task.call_id, message, outcome)
        following = await callbacks.find_next_message(session, task.call_id, context.links)
        if following is not None:
            await tasks.add(session, TaskKind.DELIVER, task.call_id, delay=max(following.due_in, wait))


async def _try(context: Context, message: Message) -> tuple[_Outcome | None, float]:
    """Send the message if its receiver has capacity. Otherwise return in how many seconds to come back."""
    try:
        receiver = host_of(message.url)
    except ValueError as error:
        return _Outcome(f"{message.url} cannot be requested: {error}", tried=False), 0.0
    wait = context.receivers.wait(receiver)
    if not wait:
        return await _send(context, message, receiver), 0.0
    if message.is_over and context.receivers.unresponsive_seconds(receiver) > LONGEST_SECONDS:
        return _Outcome("Its receiver did not respond to any callback in all that time", tried=False), 0.0
    return None, wait


async def _send(context: Context, message: Message, receiver: str) -> _Outcome:
    body = json.dumps(message.body, ensure_ascii=False, separators=(",", ":"))
    now = datetime.now(UTC)
    signatures = [Webhook(secret).sign(message.message_id, now, body) for secret in message.secrets]
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Ringback",
        "webhook-id": message.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    timeout = context.settings.callback_timeout_seconds
    began = monotonic()
    try:
        with tracing.step("callback", **{"ringback.callback": message.event}):
            headers |= tracing.headers()
            async with context.receivers.request(receiver):
                answer = await context.outbound.post(message.url, body.encode(), headers, timeout=timeout)
    except OutboundError as error:
        return _Outcome(str(error), seconds=monotonic() - began)
    redirects = " (callbacks do not follow redirects)" if 300 <= answer.status < 400 else ""
    return _Outcome(
        f"{answer.status}{redirects} {answer.text}".strip(),
        delivered=200 <= answer.status < 300,
        gone=answer.status == _GONE,
        retry_after=min(answer.retry_after, max(SCHEDULE_SECONDS)),
        seconds=monotonic() - began,
    )


async def _save(session: AsyncSession, call_id: str, message: Message, outcome: _Outcome) -> None:
    if outcome.tried:
        await callbacks.add_attempt(
            session,
            message,
            call_id,
            succeeded=outcome.delivered,
            answer=outcome.text,
            seconds=outcome.seconds,
        )
    result = "delivered"
    if outcome.delivered:
        await callbacks.mark_delivered(session, message, outcome.text)
    elif outcome.gone:
        result = "gone"
        await callbacks.mark_receiver_gone(session, message, outcome.text)
        await calls.remove_callback_url(session, call_id)
    elif not outcome.tried or message.attempts >= len(SCHEDULE_SECONDS):
        result = "failed"
        await callbacks.mark_failed(session, message, outcome.text, tried=outcome.tried)
    else:
        result = "retried"
        pause = SCHEDULE_SECONDS[message.attempts] * random.uniform(1, 1 + _JITTER)
        await callbacks.schedule_retry(session, message, outcome.text, again_after=max(pause, outcome.retry_after))
    after_commit(session, metrics.callback, result, (datetime.now(UTC) - message.began_at).total_seconds())
    attempt = message.attempts + outcome.tried
    log.info("callback", message=message.message_id, callback=message.event, attempt=attempt, ok=outcome.delivered)
