"""What the database knows, as metrics: read in one statement when Prometheus asks, at most every few seconds.

The statement reads what is live and what waits. Ended calls cost nothing, however many there are.
"""

import asyncio
import math
from collections.abc import Iterable
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import text

from app import metrics
from app.db import Database
from app.engine_models import Queue, TaskKind
from app.health import WORKER_SILENT_SECONDS

log = structlog.get_logger()

_FRESH_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0

# A task whose worker was lost waits since its lease ran out. Naming the queues makes their index usable.
READ = text("""
SELECT 'call' AS fact, status AS name, CASE WHEN only_reported THEN :reported ELSE provider END AS detail,
       count(*) AS count, 0.0 AS seconds
FROM calls WHERE ended_at IS NULL GROUP BY 2, 3
UNION ALL
SELECT 'task', kind, state, count(*), extract(epoch FROM now() - min(since)) FROM (
    SELECT kind, greatest(due_at, lease_until) AS since,
           CASE WHEN lease_until >= now() THEN 'claimed'
                WHEN lane IN (SELECT 'dial:' || name FROM providers
                              WHERE calls_at_once IS NOT NULL OR pace_calls IS NOT NULL) THEN 'gate'
                ELSE 'worker' END AS state
    FROM tasks WHERE queue IN ('calls', 'callbacks', 'transcripts') AND due_at <= now()
) AS due GROUP BY 2, 3
UNION ALL
SELECT 'worker', queue, '', count(*), 0 FROM workers WHERE seen_at > now() - CAST(:silent AS interval) GROUP BY 2
UNION ALL
SELECT 'provider', name, '', count(connected_since), 0
FROM providers LEFT JOIN listeners ON provider = name AND lease_until > now() GROUP BY 2
UNION ALL
SELECT 'callback', '', '', count(*), 0 FROM deliveries WHERE status = 'pending'
""")
VALUES = {"reported": metrics.REPORTED, "silent": timedelta(seconds=WORKER_SILENT_SECONDS)}


class Facts:
    """Keeps the gauges of `metrics.FACTS` fresh. One per API process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the facts again, unless they are fresh. Never raises: a scrape without facts is still useful."""
        async with self._reading:
            if monotonic() - self._read_at <= _FRESH_SECONDS:
                return
            _clear()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), self._db.statement() as connection:
                    _show((await connection.execute(READ, VALUES)).all())
            except Exception as error:
                log.warning("metrics_without_database", error=repr(error))
            self._read_at = monotonic()


def _clear() -> None:
    metrics.DATABASE_UP.set(0)
    metrics.CALLBACKS_PENDING.set(math.nan)
    for gauge in (
        metrics.CALLS_LIVE,
        metrics.TASKS_WAITING,
        metrics.TASKS_OLDEST,
        metrics.TASKS_CLAIMED,
        metrics.WORKERS,
        metrics.PROVIDER_CONNECTED,
    ):
        gauge.clear()


def _show(rows: Iterable[Any]) -> None:
    metrics.DATABASE_UP.set(1)
    # A zero where there is nothing, so that an alert can tell nothing from unknown.
    for queue in Queue:
        metrics.WORKERS.labels(queue).set(0)
    for kind in TaskKind:
        metrics.TASKS_WAITING.labels(kind, "worker").set(0)
        metrics.TASKS_OLDEST.labels(kind, "worker").set(0)
        metrics.TASKS_CLAIMED.labels(kind).set(0)
    for fact, name, detail, count, seconds in rows:
        if fact == "call":
            metrics.CALLS_LIVE.labels(detail, name).set(count)
        elif fact == "task" and detail == "claimed":
            metrics.TASKS_CLAIMED.labels(name).set(count)
        elif fact == "task":
            metrics.TASKS_WAITING.labels(name, detail).set(count)
            metrics.TASKS_OLDEST.labels(name, detail).set(max(0.0, float(seconds)))
        elif fact == "worker":
            metrics.WORKERS.labels(name).set(count)
        elif fact == "provider":
            metrics.PROVIDER_CONNECTED.labels(name).set(count)
        else:
            metrics.CALLBACKS_PENDING.set(count)
