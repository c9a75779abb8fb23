"""What every task needs. Opened once per worker process."""

from dataclasses import dataclass

from app.call_rules import RulesReader
from app.db import Database
from app.hints import Hints
from app.outbound import Outbound
from app.provider_directory import ProviderDirectory
from app.security import ProviderLinks, RecordingLinks
from app.settings import Settings
from app.storage import Storage
from app.transcription.base import Recognizer, Summarizer
from worker.gates import Gates
from worker.host_limiter import HostLimiter


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    db: Database
    hints: Hints
    providers: ProviderDirectory
    provider_links: ProviderLinks
    rules: RulesReader
    gates: Gates
    storage: Storage
    recognizer: Recognizer
    summarizer: Summarizer
    outbound: Outbound
    links: RecordingLinks
    receivers: HostLimiter
    """Limits the callbacks per receiver."""
    recording_hosts: HostLimiter
    """Limits the downloads per host that reports name."""


def receivers(settings: Settings) -> HostLimiter:
    """The limits of one callbacks worker."""
    return HostLimiter(settings.callback_concurrency, each=settings.callback_receiver_concurrency)


def recording_hosts(settings: Settings) -> HostLimiter:
    """The limits of one calls worker. Half of its tasks stay free to dial."""
    return HostLimiter(max(1, settings.call_concurrency // 2), each=max(1, settings.call_concurrency // 10))
