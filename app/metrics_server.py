"""Serves `/metrics` of one process on a port of its own, so that nothing of it is reachable where clients are."""

import asyncio
from contextlib import suppress

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from app import metrics
from app.metrics_facts import Facts

log = structlog.get_logger()

_RETRY_SECONDS = 5.0


class MetricsServer:
    """The server of one process. It runs in the process's own loop. If that hangs, the scrape fails, as it should."""

    def __init__(self, host: str, port: int, facts: Facts | None) -> None:
        """`facts`: what the database knows, in the one kind of process that serves it. Port 0 is any free port."""
        self._host = host
        self._port = port
        self._facts = facts
        application = web.Application()
        application.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._starting: asyncio.Task[None] | None = None

    @property
    def served_port(self) -> int | None:
        """The port that is listened on. None while it cannot be had."""
        return self._runner.addresses[0][1] if self._runner.addresses else None

    async def start(self) -> None:
        """Begin to serve. If the port is taken, try again in the background: the work matters more."""
        await self._runner.setup()
        if not await self._listen():
            self._starting = asyncio.create_task(self._listen_later())

    async def aclose(self) -> None:
        """Stop serving."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError):
                await self._starting
        await self._runner.cleanup()

    async def _listen_later(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            if await self._listen():
                return

    async def _listen(self) -> bool:
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            log.warning("metrics_port_unusable", host=self._host, port=self._port, error=str(error))
            await site.stop()
            return False
        log.info("metrics_served", host=self._host, port=self.served_port)
        return True

    async def _scrape(self, request: web.Request) -> web.Response:
        body = generate_latest(REGISTRY)
        if self._facts is not None:
            await self._facts.refresh()
            body += generate_latest(metrics.FACTS)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
