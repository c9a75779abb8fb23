"""The API process: settings, resources, routes and error handlers, wired together."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app import monitoring, providers, schema
from app.api import call_log, current, developer, do_not_call, health, mobile_numbers, notifications, recordings
from app.api.document import TAGS, document
from app.api.envelope import install_error_handlers
from app.api.reference import install_reference
from app.api.request_log import RequestLog
from app.call_rules import RulesReader
from app.changes import ChangeFeed
from app.console import ConsoleState, Streams, install_console
from app.db import Database
from app.hints import Hints, arq_pool
from app.new_calls import CallCreator
from app.numbers import NumberRules
from app.provider_directory import ProviderDirectory
from app.security import Tokens
from app.settings import Settings, get_settings, split_list
from app.throttle import LoginThrottle
from app.waiting import Waiters
from app.web.resources import Resources


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. It opens connections when it starts, and closes them when it stops."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = arq_pool(settings.redis_url)
        hints = Hints(redis)
        feed = ChangeFeed(redis)
        db = Database(settings.database_url, pooler=settings.database_pooler, after_commit=hints.send_noted)
        await schema.wait_until_usable(db, and_reachable=False)  # while it is away, requests are answered with 503
        directory = ProviderDirectory(db, settings)
        opened = Resources(
            settings=settings,
            db=db,
            providers=directory,
            new_calls=CallCreator(db, hints, directory, RulesReader(db, settings), settings),
            provider_links=providers.provider_links(settings),
            redis=redis,
            hints=hints,
            feed=feed,
            waiters=Waiters(feed),
            tokens=Tokens(
                settings.secret_key.get_secret_value(),
                access_seconds=settings.access_token_seconds,
                refresh_seconds=settings.refresh_token_seconds,
            ),
            throttle=LoginThrottle(settings.redis_url),
            links=providers.links(settings),
            storage=providers.storage(settings),
            numbers=NumberRules(settings.home_country),
        )
        app.state.resources = opened
        app.state.console = ConsoleState(Streams(db, feed))
        gc.freeze()  # keep the garbage collector from scanning what is loaded, which delayed polls
        gc.set_threshold(20_000, 20, 50)
        async with monitoring.running(settings, "api", facts_of=db):
            yield
        await app.state.console.aclose()
        await feed.aclose()
        await opened.throttle.aclose()
        await opened.hints.aclose()
        await opened.providers.aclose()
        await opened.db.dispose()

    app = FastAPI(
        title="Ringback",
        version=version("ringback"),
        summary="The developer click-to-call API on your own machine",
        lifespan=lifespan,
        openapi_tags=TAGS,
        docs_url=None,  # FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    for part in (developer, current, mobile_numbers, do_not_call, call_log, recordings, notifications, health):
        # Not included, because an included router is matched twice for each request, at 8 % of a poll.
        app.router.routes.extend(part.router.routes)
    install_reference(app)
    if settings.console:
        install_console(app)
    app.add_middleware(RequestLog)
    # Outermost, so that a page can read errors too.
    if origins := split_list(settings.cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "Idempotency-Key", "Prefer"],
            expose_headers=["X-Request-Id", "Retry-After"],
            max_age=3600,
        )
    install_error_handlers(app)
    app.openapi = partial(document, app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app
