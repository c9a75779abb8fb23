"""The resources of the API process."""

from dataclasses import dataclass
from typing import cast

from arq.connections import ArqRedis
from fastapi import Request

from app.changes import ChangeFeed
from app.db import Database
from app.hints import Hints
from app.new_calls import CallCreator
from app.numbers import NumberRules
from app.provider_directory import ProviderDirectory
from app.security import ProviderLinks, RecordingLinks, Tokens
from app.settings import Settings
from app.storage import Storage
from app.throttle import LoginThrottle
from app.waiting import Waiters


@dataclass(frozen=True, slots=True)
class Resources:
    """What the process opens once, at its start (`app.main`)."""

    settings: Settings
    db: Database
    redis: ArqRedis
    hints: Hints
    feed: ChangeFeed
    waiters: Waiters
    tokens: Tokens
    throttle: LoginThrottle
    providers: ProviderDirectory
    new_calls: CallCreator
    provider_links: ProviderLinks
    links: RecordingLinks
    storage: Storage
    numbers: NumberRules


def get_resources(request: Request) -> Resources:
    return cast(Resources, request.app.state.resources)
