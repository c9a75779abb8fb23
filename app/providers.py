"""The registries: which adapters there are, and how settings become one.

A new adapter is its own file, and a line in two tables here. No other module of the server names an adapter.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from app.options import Options, SettingsError
from app.outbound import Outbound, parse_networks
from app.security import ProviderLinks, RecordingLinks, Vault, installation_id
from app.settings import Settings
from app.storage import FolderStorage, S3Storage, Storage
from app.storage.s3 import S3Options
from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.base import AdapterContext, TelephonyProvider
from app.telephony.exotel import Exotel, ExotelOptions
from app.telephony.http import HttpOptions, TemplateProvider
from app.telephony.plivo import Plivo, PlivoOptions, Vobiz, VobizOptions
from app.telephony.simulator import Simulator, SimulatorOptions
from app.telephony.twilio import Twilio, TwilioOptions
from app.transcription import fitness, models
from app.transcription.base import Recognizer, Summarizer
from app.transcription.deepgram import DeepgramOptions, DeepgramRecognizer
from app.transcription.indic_conformer import IndicConformerOptions, IndicConformerRecognizer
from app.transcription.openai_speech import OpenAIRecognizer, SpeechOptions
from app.transcription.openai_summary import ChatSummarizer, SummaryOptions
from app.transcription.sarvam import SarvamOptions, SarvamRecognizer
from app.transcription.summary import LocalSummarizer
from app.transcription.whisper import WhisperOptions, WhisperRecognizer

T = TypeVar("T")


def _whisper(settings: Settings) -> Recognizer:
    options = WhisperOptions.read()
    return WhisperRecognizer(
        options.model,
        models_folder(settings),
        device=options.device,
        threads=options.threads,
        of_unusable=options.unusable_language,
        concurrency=settings.transcript_concurrency,
    )


def _openai(settings: Settings) -> Recognizer:
    options = SpeechOptions.read()
    return OpenAIRecognizer(
        str(options.url),
        model=options.model,
        api_key=_secret(options.api_key),
        concurrency=settings.transcript_concurrency,
    )


def _deepgram(settings: Settings) -> Recognizer:
    options = DeepgramOptions.read()
    return DeepgramRecognizer(
        str(options.url),
        model=options.model,
        api_key=options.api_key.get_secret_value(),
        concurrency=settings.transcript_concurrency,
    )


def _sarvam(settings: Settings) -> Recognizer:
    options = SarvamOptions.read()
    return SarvamRecognizer(
        str(options.url),
        model=options.model,
        api_key=options.api_key.get_secret_value(),
        requests=options.requests,
        concurrency=settings.transcript_concurrency,
    )


def _indic_conformer(settings: Settings) -> Recognizer:
    options = IndicConformerOptions.read()
    return IndicConformerRecognizer(
        options.model,
        language=options.language,
        device=options.device,
        threads=options.threads,
        concurrency=settings.transcript_concurrency,
    )


TELEPHONY: dict[str, type[TelephonyProvider]] = {
    "simulator": Simulator,
    "asterisk": Asterisk,
    "twilio": Twilio,
    "plivo": Plivo,
    "vobiz": Vobiz,
    "exotel": Exotel,
    "http": TemplateProvider,
}
RECOGNIZERS: dict[str, Callable[[Settings], Recognizer]] = {
    "whisper": _whisper,
    "indicconformer": _indic_conformer,
    "openai": _openai,
    "deepgram": _deepgram,
    "sarvam": _sarvam,
}

DEFAULTS = {"telephony_provider": "simulator", "recognizer": "whisper"}
"""The adapter that is used where the setting names none."""

ENVIRONMENT = "environment"
"""The name of the telephony provider that environment variables configure."""

OPTIONS: dict[str, type[Options]] = {
    "Simulator": SimulatorOptions,
    "Asterisk": AsteriskOptions,
    "Twilio": TwilioOptions,
    "Plivo": PlivoOptions,
    "Vobiz": VobizOptions,
    "Exotel": ExotelOptions,
    "Any REST service": HttpOptions,
    "Local speech recognition": WhisperOptions,
    "IndicConformer": IndicConformerOptions,
    "Speech endpoint": SpeechOptions,
    "Deepgram": DeepgramOptions,
    "Sarvam": SarvamOptions,
    "Summary endpoint": SummaryOptions,
    "S3": S3Options,
}
"""The options of every adapter, by the title of their table in docs/settings.md."""


def telephony_kinds() -> dict[str, type[TelephonyProvider]]:
    """Every telephony adapter by its kind: ours, and those of installed packages (docs/adapters.md)."""
    installed = {point.name: point for point in entry_points(group="ringback.telephony")}
    return {kind: point.load() for kind, point in installed.items()} | TELEPHONY


def environment_kind(settings: Settings) -> str:
    """The kind of the telephony provider that environment variables configure."""
    return settings.telephony_provider or DEFAULTS["telephony_provider"]


def telephony_from_environment(settings: Settings) -> TelephonyProvider:
    """The telephony provider that environment variables configure. Raises `SettingsError`."""
    adapter = _choose("RINGBACK_TELEPHONY_PROVIDER", telephony_kinds(), environment_kind(settings))
    return adapter.make(adapter.options.read(), _adapter_context(settings, ENVIRONMENT))


def telephony_from_values(settings: Settings, name: str, kind: str, values: Mapping[str, Any]) -> TelephonyProvider:
    """The telephony provider `name`, with options that were stored. Raises `SettingsError`."""
    adapter = _choose(f"The provider {name}", telephony_kinds(), kind)
    return adapter.make(adapter.options.from_values(values), _adapter_context(settings, name))


def _adapter_context(settings: Settings, provider: str) -> AdapterContext:
    return AdapterContext(
        installation=installation_id(
            settings.secret_key.get_secret_value(), "" if provider == ENVIRONMENT else provider
        ),
        provider=provider,
        data_dir=settings.data_dir,
        home_country=settings.home_country,
        longest_ring_seconds=max(settings.agent_ring_seconds, settings.customer_ring_seconds),
        has_public_address=settings.public_url is not None,
    )


def recognizer(settings: Settings) -> Recognizer:
    """The adapter that turns audio into words. Raises `SettingsError`."""
    name = DEFAULTS["recognizer"] if settings.recognizer is None else settings.recognizer
    return _choose("RINGBACK_RECOGNIZER", RECOGNIZERS, name)(settings)


def check_speech(settings: Settings) -> tuple[str, str | None]:
    """The name of the recognizer, and why it may make no usable text of the default language. Raises `SettingsError`,
    and `TranscriptionError` if a local model is not there."""
    chosen = recognizer(settings)
    if not isinstance(chosen, WhisperRecognizer):
        return chosen.name, None
    options = WhisperOptions.read()
    models.resolve(options.model, models_folder(settings))
    language = (settings.default_language or "").partition("-")[0]
    return chosen.name, fitness.why_unusable(options.model, language) if language else None


def summarizer() -> Summarizer:
    """What makes summary and outcome: a chat endpoint if one is set, else rules. Raises `SettingsError`."""
    options = SummaryOptions.read()
    if options.url is None:
        return LocalSummarizer()
    return ChatSummarizer(str(options.url), model=options.model, api_key=_secret(options.api_key))


def storage(settings: Settings) -> Storage:
    """Where recordings are kept. Raises `SettingsError`."""
    options = S3Options.read()
    if options.bucket is None:
        return FolderStorage(settings.data_dir)
    return S3Storage(
        options.bucket,
        endpoint=None if options.endpoint is None else str(options.endpoint).rstrip("/"),
        region=options.region,
        access_key_id=options.access_key_id,
        secret_access_key=_secret(options.secret_access_key),
    )


def refuse_removed_variables() -> None:
    """Raises `SettingsError` if a variable is set that an adapter no longer has, even if the adapter is not in use."""
    for options in OPTIONS.values():
        options.refuse_removed()


def outbound(settings: Settings) -> Outbound:
    """The HTTP client for URLs that clients choose."""
    return Outbound(parse_networks(settings.outbound_networks))


def links(settings: Settings) -> RecordingLinks:
    """What makes and checks links to recordings."""
    return RecordingLinks(settings.secret_key.get_secret_value(), settings.base_url)


def vault(settings: Settings) -> Vault:
    """What encrypts stored secrets."""
    return Vault(settings.secret_key.get_secret_value())


def provider_links(settings: Settings) -> ProviderLinks:
    """What makes and checks the URLs at which telephony providers reach this server."""
    public_url = None if settings.public_url is None else str(settings.public_url)
    return ProviderLinks(settings.secret_key.get_secret_value(), public_url)


def models_folder(settings: Settings) -> Path:
    """The folder of fetched speech models."""
    return settings.data_dir / "models"


def _choose(variable: str, registry: dict[str, T], name: str) -> T:
    try:
        return registry[name]
    except KeyError:
        raise SettingsError(f"{variable}: there is no {name!r}. Choose one of: {', '.join(sorted(registry))}") from None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
