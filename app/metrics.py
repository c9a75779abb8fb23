"""Every metric, and one function for each moment that is counted. docs/monitoring.md explains them.

Moments are counted in the process where they happen, from its start on. What the database knows, such as how many tasks
wait, is in `FACTS`. Only the API serves these, and reads them when it is asked (`app.metrics_facts`).

Label values are few, and none is a telephone number, an e-mail address or an URL.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from app.settings import Settings

REPORTED = "(reported)"
"""The label `provider` of calls that only another system has."""

FACTS = CollectorRegistry()

_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0)
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DIAL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0)
_ANSWER_BUCKETS = (2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 300.0)
_TRANSCRIPT_BUCKETS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
_LAG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0, 14400.0, 86400.0)
_TASK_BUCKETS = (0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0)

# What each process counts

_PROCESS = Gauge("ringback_process_info", "Always 1: what this process is", ["process", "version"])

_HTTP = Histogram(
    "ringback_http_request_seconds",
    "Time of HTTP requests. `route` is the template of the path, and `-` where there is none",
    ["method", "route", "status"],
    buckets=_HTTP_BUCKETS,
)
_CREATED = Counter(
    "ringback_calls_created_total",
    "Calls that were ordered over HTTP, or are known by a report",
    ["provider", "user"],
)
_ENDED = Counter(
    "ringback_calls_ended_total",
    "Calls that ended, by their status. One that timed out counts again if a late report corrects its end",
    ["provider", "status", "user"],
)
_DIAL = Histogram(
    "ringback_call_dial_seconds",
    "From a call's order until it is dialed, or from the begin of calling hours. A refused dial that is tried again "
    "counts again",
    ["provider"],
    buckets=_DIAL_BUCKETS,
)
_ANSWER = Histogram(
    "ringback_call_answer_seconds",
    "From a call's order until the customer answers, or from the begin of calling hours",
    ["provider"],
    buckets=_ANSWER_BUCKETS,
)
_ORDER_TO_TRANSCRIPT = Histogram(
    "ringback_call_transcript_seconds",
    "From a call's order until its transcript is ready, with the talk",
    buckets=_TRANSCRIPT_BUCKETS,
)
_END_TO_TRANSCRIPT = Histogram(
    "ringback_transcript_delay_seconds",
    "From the end of a call until its transcript is ready",
    buckets=_TRANSCRIPT_BUCKETS,
)
_PROVIDER = Histogram(
    "ringback_provider_request_seconds",
    "Time of requests to telephony providers. `result` is `ok`, `rejected`, `unknown` (no answer to a dial) or `error`",
    ["provider", "request", "result"],
    buckets=_REQUEST_BUCKETS,
)
_LISTENER = Counter(
    "ringback_listener_disconnects_total",
    "How often this worker lost a provider's stream of events, or found that the provider cannot be reached",
    ["provider"],
)
_TASK = Histogram("ringback_task_seconds", "Time of attempts at tasks", ["kind"], buckets=_TASK_BUCKETS)
_ATTEMPTS = Counter(
    "ringback_task_attempts_total",
    "Attempts at tasks: `done`, `retried`, `given_up`, `failed` (after the task's result was saved, so it is not "
    "retried), or `lease_lost` (the worker was silent for too long, so another one has the task)",
    ["kind", "result"],
)
_RUNNING = Gauge("ringback_worker_tasks_running", "Tasks that this worker runs now", ["queue"])
_SLOTS = Gauge("ringback_worker_slots", "Tasks that this worker can run at once", ["queue"])
_HINTS_LOST = Counter("ringback_hints_lost_total", "Hints that Valkey did not take. The sweep finds their tasks")
_RECORDINGS = Counter("ringback_recordings_total", "Recordings: `stored`, or `unavailable` for good", ["result"])
_TRANSCRIPTS = Counter("ringback_transcripts_total", "Transcripts of recordings: `ready` or `failed`", ["result"])
_AUDIO = Counter("ringback_transcribed_audio_seconds_total", "Length of the recordings that were transcribed")
_TRANSCRIBING = Counter(
    "ringback_transcribing_seconds_total", "Time that took: decoding, recognition and summary together"
)
_CALLBACKS = Counter(
    "ringback_callbacks_total",
    "Attempts to send a callback: `delivered`, `retried`, `failed` (no more attempts) or `gone` (410)",
    ["result"],
)
_CALLBACK_LAG = Histogram(
    "ringback_callback_lag_seconds",
    "From what a callback reports, or its replay, until its receiver accepted it",
    buckets=_LAG_BUCKETS,
)

_RESULTS: dict[str, list[tuple[Counter, tuple[str, ...]]]] = {
    "calls": [(_RECORDINGS, ("stored", "unavailable"))],
    "callbacks": [(_CALLBACKS, ("delivered", "retried", "failed", "gone"))],
    "transcripts": [(_TRANSCRIPTS, ("ready", "failed"))],
}

# What the database knows

DATABASE_UP = Gauge(
    "ringback_database_up", "1 if PostgreSQL answers the API. If 0, the other facts are missing", registry=FACTS
)
CALLS_LIVE = Gauge(
    "ringback_calls_live", "Calls that have not ended, by their status", ["provider", "status"], registry=FACTS
)
TASKS_WAITING = Gauge(
    "ringback_tasks_waiting",
    "Tasks that are due and that no worker has. They wait for a `worker`, or at a provider's `gate`",
    ["kind", "waits_for"],
    registry=FACTS,
)
TASKS_OLDEST = Gauge(
    "ringback_tasks_oldest_seconds",
    "For how long the oldest of these tasks has waited",
    ["kind", "waits_for"],
    registry=FACTS,
)
TASKS_CLAIMED = Gauge("ringback_tasks_claimed", "Tasks that a worker has", ["kind"], registry=FACTS)
WORKERS = Gauge("ringback_workers", "Workers with a heartbeat", ["queue"], registry=FACTS)
PROVIDER_CONNECTED = Gauge(
    "ringback_provider_connected",
    "1 if a worker hears the events of this provider, or can reach it where it has no stream",
    ["provider"],
    registry=FACTS,
)
CALLBACKS_PENDING = Gauge("ringback_callbacks_pending", "Callbacks that no receiver has accepted yet", registry=FACTS)

_by_user = False
_http_children: dict[tuple[str, str, int], Histogram] = {}
_MOST_HTTP_CHILDREN = 2000
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def start(settings: Settings, process: str, version: str) -> None:
    """Once in each process: name it, and decide whether calls are counted by user."""
    global _by_user
    _by_user = settings.metrics_by_user
    disable_created_metrics()  # type: ignore[no-untyped-call]
    _PROCESS.labels(process, version).set(1)


def http_request(method: str, route: str, status: int, seconds: float) -> None:
    """A request was answered."""
    key = method, route, status
    child = _http_children.get(key)
    if child is None:
        child = _HTTP.labels(method if method in _METHODS else "other", route, status)
        if len(_http_children) < _MOST_HTTP_CHILDREN:
            _http_children[key] = child
    child.observe(seconds)


def call_created(provider: str, user_id: str) -> None:
    """A call was ordered."""
    _CREATED.labels(provider, _user(user_id)).inc()


def call_dialed(provider: str, seconds: float) -> None:
    """A call's dial attempt was claimed, so long after its order."""
    _DIAL.labels(provider).observe(seconds)


def call_answered(provider: str, seconds: float) -> None:
    """The customer answered, so long after the order."""
    _ANSWER.labels(provider).observe(max(0.0, seconds))


def call_ended(provider: str, status: str, user_id: str) -> None:
    """A call ended."""
    _ENDED.labels(provider, status, _user(user_id)).inc()


def provider_request(provider: str, request: str, result: str, seconds: float) -> None:
    """A provider answered a request, or did not."""
    _PROVIDER.labels(provider, request, result).observe(seconds)


def listener_disconnected(provider: str) -> None:
    """A listener no longer hears its provider."""
    _LISTENER.labels(provider).inc()


def task_attempted(kind: str, result: str, seconds: float) -> None:
    """A worker tried a task."""
    _TASK.labels(kind).observe(seconds)
    _ATTEMPTS.labels(kind, result).inc()


def start_worker(queue: str, kinds: Iterable[str], slots: int, running: Callable[[], int]) -> None:
    """Once in each worker: its slots, how many of them are taken, and a zero for what it will count.

    Without the zeros, Prometheus would not see the first of a rare event as an increase.
    """
    _SLOTS.labels(queue).set(slots)
    _RUNNING.labels(queue).set_function(running)
    for kind in kinds:
        for result in ("done", "retried", "given_up", "failed", "lease_lost"):
            _ATTEMPTS.labels(kind, result)
    for counter, results in _RESULTS[queue]:
        for result in results:
            counter.labels(result)


def hints_lost(count: int) -> None:
    """Valkey did not take these hints."""
    _HINTS_LOST.inc(count)


def recording(result: str) -> None:
    """A recording was `stored`, or is `unavailable`."""
    _RECORDINGS.labels(result).inc()


def transcribed(audio_seconds: float, seconds: float) -> None:
    """A recording of this length was transcribed in this time."""
    _AUDIO.inc(audio_seconds)
    _TRANSCRIBING.inc(seconds)


def transcript_ready(since_order: float, since_end: float | None) -> None:
    """A transcript is ready."""
    _TRANSCRIPTS.labels("ready").inc()
    _ORDER_TO_TRANSCRIPT.observe(since_order)
    if since_end is not None:
        _END_TO_TRANSCRIPT.observe(max(0.0, since_end))


def transcript_failed() -> None:
    """A recording could not be transcribed."""
    _TRANSCRIPTS.labels("failed").inc()


def callback(result: str, lag_seconds: float) -> None:
    """A callback was sent, so long after its delivery was written."""
    _CALLBACKS.labels(result).inc()
    if result == "delivered":
        _CALLBACK_LAG.observe(max(0.0, lag_seconds))


def _user(user_id: str) -> str:
    return user_id if _by_user else ""
