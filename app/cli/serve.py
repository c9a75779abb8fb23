"""`ringback serve`: the API, in one process or in several behind one listener.

Several processes accept from one listening socket, which the parent opens and they inherit. The kernel gives a
connection to whoever is free. The parent only starts them again when they end.
"""

import os
import signal
import socket
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from app import logs, parent_watch, tracing
from app.cli.common import fail
from app.cli.processes import Processes
from app.main import create_app
from app.settings import Settings, get_settings

_LISTENER = "RINGBACK_LISTENER_FD"
_BACKLOG = 2048
_METRICS_PLACE = 4
"""The second process has this place after the metrics port that is set: `ringback up` gives those before to workers."""


class _Stopped(BaseException):
    """SIGINT or SIGTERM."""


def run() -> None:
    """Serve until stopped."""
    parent_watch.start()
    settings = get_settings()
    logs.configure(settings.log_format, tracing.add_trace_id)
    inherited = os.environ.pop(_LISTENER, None)
    if inherited is not None:
        _serve(settings, socket.socket(fileno=int(inherited)))
    elif settings.api_processes == 1:
        _serve(settings, None)
    else:
        _supervise(settings)


class _Server(uvicorn.Server):
    """Lets those who wait go when it is to stop. An open page of the console, or a client that waits for news, would
    hold it up."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if hasattr(self._app.state, "console"):  # not before it has started
            self._app.state.resources.feed.stop()
            self._app.state.resources.waiters.stop()
            self._app.state.console.streams.stop()
        super().handle_exit(sig, frame)


def _serve(settings: Settings, listener: socket.socket | None) -> None:
    """Serve in this process. Without a listener it opens one."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,  # longer than proxies keep a connection (nginx 60 s), so that the proxy closes it
    )
    _Server(config, app).run(None if listener is None else [listener])


def _supervise(settings: Settings) -> None:
    """Run the processes until this one is stopped."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    processes = Processes()
    try:
        with _listen(settings) as listener:
            for place in range(settings.api_processes):
                environment = {_LISTENER: str(listener.fileno())}
                if place and settings.metrics_port:
                    environment["RINGBACK_METRICS_PORT"] = str(settings.metrics_port + _METRICS_PLACE + place - 1)
                name = f"API process {place + 1}"
                processes.start(name, "app.cli", "serve", environment=environment, inherits=[listener.fileno()])
            processes.watch()
    except _Stopped:
        pass
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        processes.stop()


def _listen(settings: Settings) -> socket.socket:
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        fail(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another: RINGBACK_PORT")


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped
