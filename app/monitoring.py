"""What watches one process from its start to its end: its metrics and its traces, as far as they are turned on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from app import metrics, tracing
from app.db import Database
from app.settings import Settings


@asynccontextmanager
async def running(settings: Settings, process: str, *, facts_of: Database | None = None) -> AsyncIterator[None]:
    """Serves the metrics of this process, and sends its spans, while the block runs.

    `process` is `api`, or the queue of a worker. `facts_of`: also serve what this database knows.
    """
    metrics.start(settings, process, version("ringback"))
    tracing.start(settings, process)
    server = None
    if settings.metrics_port is not None:
        from app.metrics_facts import Facts
        from app.metrics_server import MetricsServer

        facts = None if facts_of is None else Facts(facts_of)
        server = MetricsServer(settings.metrics_host, settings.metrics_port, facts)
        await server.start()
    try:
        yield
    finally:
        if server is not None:
            await server.aclose()
        await tracing.stop()
