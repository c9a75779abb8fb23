"""What a worker measures of its own work: each attempt at a task, and each request to a provider."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from app import metrics, tracing
from app.tasks import ClaimedTask
from app.telephony.base import Rejected, Unknown

T = TypeVar("T")


class Attempt:
    """An attempt at a task. Who handles a failure says what became of it."""

    result = "done"


@contextmanager
def attempt(task: ClaimedTask) -> Iterator[Attempt]:
    """Measures an attempt at this task, and puts it into the trace of its call."""
    attempted, began = Attempt(), monotonic()
    attributes = {"ringback.provider": task.provider, "ringback.attempt": task.attempts}
    try:
        with tracing.of_call(f"task {task.kind}", task.call_id, task.traceparent, **attributes):
            yield attempted
    finally:
        metrics.task_attempted(task.kind, attempted.result, monotonic() - began)


async def asked(provider: str, request: str, answer: Awaitable[T]) -> T:
    """The answer of this provider to this request."""
    result, began = "error", monotonic()
    try:
        with tracing.step(f"provider {request}", **{"ringback.provider": provider}):
            answered = await answer
        result = "rejected" if isinstance(answered, Rejected) else "unknown" if isinstance(answered, Unknown) else "ok"
        return answered
    finally:
        metrics.provider_request(provider, request, result, monotonic() - began)
