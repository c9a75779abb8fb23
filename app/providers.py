"""The registries: which adapters there are, and how settings become one. A new adapter is its file and a line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import AnyHttpUrl, SecretStr, ValidationError

from app.numbers import NumberRules
from app.outbound import Outbound, parse_networks
from app.security import RecordingLinks, installation_id
from app.settings import Settings, SettingsError, explain
from app.storage import FolderStorage, S3Storage, Storage
from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.base import TelephonyProvider
from app.telephony.simulator import Simulator
from app.transcription.base import Recognizer, Summarizer
from app.transcription.openai_speech import OpenAIRecognizer
from app.transcription.openai_summary import ChatSummarizer
from app.transcription.outcome import RulesSummarizer
from app.transcription.whisper import WhisperRecognizer

T = TypeVar("T")

TELEPHONY: dict[str, Callable[[Settings], TelephonyProvider]] = {
    "simulator": lambda settings: Simulator(
        settings.data_dir / "simulator",
        speed=settings.simulator_speed,
        latency=settings.simulator_latency_seconds,
    ),
    "asterisk": lambda settings: Asterisk(
        AsteriskOptions(),
        installation=installation_id(settings.secret_key.get_secret_value()),
        home_country=settings.home_country,
        longest_ring_seconds=max(settings.agent_ring_seconds, settings.customer_ring_seconds),
    ),
}


RECOGNIZERS: dict[str, Callable[[Settings], Recognizer]] = {
    "whisper": lambda settings: WhisperRecognizer(
        settings.whisper_model,
        models_folder(settings),
        device=settings.whisper_device,
        threads=settings.whisper_threads,
        concurrency=settings.transcript_concurrency,
    ),
    "openai": lambda settings: OpenAIRecognizer(
        _required("RINGBACK_SPEECH_URL", settings.speech_url),
        model=settings.speech_model,
        api_key=_secret(settings.speech_api_key),
        concurrency=settings.transcript_concurrency,
    ),
}


def telephony(settings: Settings) -> TelephonyProvider:
    """The adapter that dials."""
    adapter = _choose("RINGBACK_TELEPHONY_PROVIDER", TELEPHONY, settings.telephony_provider)
    try:
        return adapter(settings)
    except ValidationError as error:  # its own settings
        raise explain(error) from None


def number_rules(settings: Settings) -> NumberRules:
    """How this installation reads numbers. Raises `SettingsError` where the telephony provider's settings are wrong."""
    return NumberRules(settings.home_country, telephony(settings).capabilities.extension_refusal)


def recognizer(settings: Settings) -> Recognizer:
    """What turns audio into words."""
    return _choose("RINGBACK_RECOGNIZER", RECOGNIZERS, settings.recognizer)(settings)


def summarizer(settings: Settings) -> Summarizer:
    """What makes summary and outcome: a chat endpoint if there is one, else the rules."""
    if settings.summary_url is None:
        return RulesSummarizer()
    return ChatSummarizer(
        str(settings.summary_url), model=settings.summary_model, api_key=_secret(settings.summary_api_key)
    )


def storage(settings: Settings) -> Storage:
    """Where recordings are kept."""
    if settings.s3_bucket is not None:
        return S3Storage(
            settings.s3_bucket,
            endpoint=None if settings.s3_endpoint is None else str(settings.s3_endpoint).rstrip("/"),
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=_secret(settings.s3_secret_access_key),
        )
    return FolderStorage(settings.data_dir)


def outbound(settings: Settings) -> Outbound:
    """The way to addresses that clients named."""
    return Outbound(parse_networks(settings.outbound_networks))


def links(settings: Settings) -> RecordingLinks:
    """Who makes and reads links to recordings."""
    return RecordingLinks(settings.secret_key.get_secret_value(), settings.base_url)


def models_folder(settings: Settings) -> Path:
    """Where fetched speech models are kept."""
    return settings.data_dir / "models"


def _choose(variable: str, registry: dict[str, T], name: str) -> T:
    try:
        return registry[name]
    except KeyError:
        raise SettingsError(f"{variable}: there is no {name!r}. Choose one of: {', '.join(sorted(registry))}") from None


def _required(variable: str, url: AnyHttpUrl | None) -> str:
    if url is None:
        raise SettingsError(f"{variable}: is needed by this choice of RINGBACK_RECOGNIZER")
    return str(url)


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
