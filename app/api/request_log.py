"""A request id on every response and log line, a log line for each failed request, and the metrics of all.

Plain ASGI, because Starlette's `BaseHTTPMiddleware` would halve the rate of polls (docs/benchmarks.md).
"""

import random
from time import perf_counter

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics, tracing
from app.api.deps import WAITED
from app.api.envelope import failure
from app.errors import RingbackError

log = structlog.get_logger()


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"{random.getrandbits(64):016x}"  # not a secret, and ten times cheaper than one
        structlog.contextvars.bind_contextvars(request_id=request_id)
        tracing.begin_request(scope)
        began = perf_counter()
        status, began_answer = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, began_answer
            if message["type"] == "http.response.start":
                status, began_answer = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            # Here, because a handler runs outside of this middleware, and its response would have no request id.
            log.exception("unexpected_error")
            if began_answer:
                raise
            await failure(500, RingbackError.message)(scope, receive, send_with_id)
        finally:
            seconds, route = perf_counter() - began - scope.get(WAITED, 0.0), _route(scope)
            metrics.http_request(scope["method"], route, status, seconds)
            # Success is logged by what it changed: a login has its own line, and a call its history.
            if status >= 400:
                log.info("request", method=scope["method"], path=route, status=status, ms=round(seconds * 1000, 1))


def _route(scope: Scope) -> str:
    """The route's template, which has no ids, numbers or tokens. Unknown paths are not logged."""
    route = scope.get("route")
    return str(getattr(route, "path", "-"))
