"""What every task needs, opened once per worker process."""

from dataclasses import dataclass

from app.db import Database
from app.outbound import Outbound
from app.security import RecordingLinks
from app.settings import Settings
from app.storage import Storage
from app.tasks import Hints
from app.telephony.base import TelephonyProvider
from app.transcription.base import Recognizer, Summarizer
from worker.host_limiter import HostLimiter


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    db: Database
    hints: Hints
    provider: TelephonyProvider
    storage: Storage
    recognizer: Recognizer
    summarizer: Summarizer
    outbound: Outbound
    links: RecordingLinks
    receivers: HostLimiter
    """Of callbacks."""
    recording_hosts: HostLimiter
    """Which reports name."""


def receivers(settings: Settings) -> HostLimiter:
    """Shares of what one callbacks worker sends."""
    return HostLimiter(settings.callback_concurrency, each=settings.callback_receiver_concurrency)


def recording_hosts(settings: Settings) -> HostLimiter:
    """Shares of what one calls worker fetches: of two hands or more, half are left to dial."""
    return HostLimiter(max(1, settings.call_concurrency // 2), each=max(1, settings.call_concurrency // 10))
