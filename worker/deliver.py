"""Send a call's callbacks, one after another: each task sends one, and owes the next."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urlsplit

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks.webhooks import Webhook

from app import callbacks, tasks
from app.callbacks import SCHEDULE_SECONDS, Message
from app.models import TaskKind
from app.outbound import OutboundError
from app.tasks import ClaimedTask
from worker.context import Context

log = structlog.get_logger()

_JITTER = 0.2
_GONE = 410


@dataclass(frozen=True, slots=True)
class _Outcome:
    delivered: bool
    gone: bool
    retry_after: float
    told: str


async def run(context: Context, task: ClaimedTask) -> None:
    async with context.db.transaction() as session:
        message = await callbacks.next_message(session, task.call_id, context.links)
    outcome = None
    turned_away = 0.0
    if message is not None and message.due_in <= 0:
        turned_away = context.receivers.wait(_receiver(message))
        if not turned_away:
            outcome = await _send(context, message)
    async with tasks.transaction(context.db, context.hints) as session:
        # In this order: whoever adds a callback has the lock, and may be waiting for this task to be gone.
        await callbacks.lock(session, task.call_id)
        await tasks.finish(session, task)
        if message is not None and outcome is not None:
            await _note(session, message, outcome)
        following = await callbacks.next_message(session, task.call_id, context.links)
        if following is not None:
            await tasks.add(session, TaskKind.DELIVER, task.call_id, delay=max(following.due_in, turned_away))


def _receiver(message: Message) -> str:
    """Who answers for this message."""
    parts = urlsplit(message.url)
    return f"{parts.hostname}:{parts.port}"


async def _send(context: Context, message: Message) -> _Outcome:
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
    try:
        answer = await context.receivers.send(
            _receiver(message), lambda: context.outbound.post(message.url, body.encode(), headers, timeout=timeout)
        )
    except OutboundError as error:
        return _Outcome(False, False, 0.0, str(error))
    told = f"{answer.status} {answer.text}".strip()
    delivered = 200 <= answer.status < 300
    return _Outcome(delivered, answer.status == _GONE, _seconds(answer.retry_after), told)


async def _note(session: AsyncSession, message: Message, outcome: _Outcome) -> None:
    attempt = message.attempts + 1
    if outcome.delivered:
        await callbacks.delivered(session, message, outcome.told)
    elif outcome.gone:
        await callbacks.stop(session, message, outcome.told)
    elif message.attempts >= len(SCHEDULE_SECONDS):
        await callbacks.given_up(session, message, outcome.told)
    else:
        pause = SCHEDULE_SECONDS[message.attempts] * random.uniform(1, 1 + _JITTER)
        await callbacks.failed(session, message, outcome.told, again_after=max(pause, outcome.retry_after))
    log.info("callback", message=message.message_id, callback=message.event, attempt=attempt, ok=outcome.delivered)


def _seconds(retry_after: str | None) -> float:
    """What a receiver asked for, in either of the header's forms; at most the schedule's longest pause."""
    if retry_after is None:
        return 0.0
    try:
        seconds = (
            float(retry_after) if retry_after.isdigit() else parsedate_to_datetime(retry_after).timestamp() - time()
        )
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), max(SCHEDULE_SECONDS))
