"""The server's own settings. Each is an environment variable: `RINGBACK_` and the name.

Adapters declare their options beside their code (`app.options`).

A running `ringback up` writes `instance.json` into its data folder. What the environment does not set is read from
there. So a second shell finds the running instance by `RINGBACK_DATA_DIR` alone.
"""

import json
import os
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AnyHttpUrl,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app import numbers
from app.options import Options, SettingsError

DEFAULT_DATA_DIR = Path("var")
INSTANCE_FILE = "instance.json"
Seconds = Annotated[float, Field(gt=0)]


class Settings(Options):
    """The tables of docs/settings.md are made from this class and from the adapters' options."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_")

    renamed = {  # noqa: RUF012
        "RINGBACK_PROVIDER_USERNAME": "call_log_username",
        "RINGBACK_PROVIDER_PASSWORD": "call_log_password",
        "RINGBACK_DIAL_PATIENCE_SECONDS": "queue_seconds",
    }

    # Where things are
    port: int = Field(8000, ge=1, le=65535, description="Port the API listens on")
    host: str = Field("127.0.0.1", description="Address the API listens on")
    api_processes: int = Field(1, ge=1, le=64, description="How many processes serve the API, behind one listener")
    public_url: AnyHttpUrl | None = Field(
        None, description="Where clients reach the API, for links in answers; absent: `http://host:port`"
    )
    data_dir: Path = Field(DEFAULT_DATA_DIR, description="Folder for recordings, models and embedded servers")
    database_url: str = Field(description="PostgreSQL, as `postgresql+asyncpg://user:password@host/name`")
    database_pooler: Literal["transaction"] | None = Field(
        None,
        description="`transaction` if RINGBACK_DATABASE_URL leads to a pooler in this mode, as PgBouncer; absent: to "
        "PostgreSQL",
    )
    redis_url: str = Field(description="Valkey or Redis, as `redis://:password@host:6379/0`")
    trusted_proxies: str = Field(
        "127.0.0.1", description="Addresses whose X-Forwarded-For is believed, comma-separated"
    )
    embedded: bool = Field(False, description="Set by `ringback up`: its own PostgreSQL and Valkey")
    cors_origins: str = Field(
        "",
        description="Origins of web pages whose scripts may use the API, comma-separated: `https://crm.example.com`; "
        "absent: none",
    )
    console: bool = Field(True, description="Whether the web console is served, at `/`")
    log_format: Literal["json", "console"] = Field("json", description="`json` or `console`")

    # Accounts
    secret_key: SecretStr = Field(description="Signs tokens: 32 random characters or more")
    access_token_seconds: int = Field(7200, ge=60, description="Life of an access token")
    refresh_token_seconds: int = Field(30 * 86400, ge=60, description="Life of a login session")

    # Calls
    home_country: str = Field(
        "IN", description="ISO code of the country whose numbers are written without a country code: `IN`, `GB`, `US`"
    )
    time_zone: str = Field(
        "Asia/Kolkata", description="Time zone of calling hours and of limits by day and month, as `Europe/London`"
    )
    telephony_provider: str | None = Field(
        None, description="The adapter of the provider `environment`, which its own variables configure"
    )
    caller_id: str | None = Field(None, description="Number both people are shown, unless the call names its own")
    agent_ring_seconds: Seconds = Field(30, description="How long the agent's telephone rings")
    customer_ring_seconds: Seconds = Field(45, description="How long the customer's telephone rings")
    queue_seconds: Seconds = Field(
        900,
        description="A call that could not be dialed this long after it was created ends as `failed`: the provider "
        "cannot be reached, or has no capacity, or no worker ran",
    )
    answer_timeout_seconds: Seconds = Field(
        300,
        description="A leg that is neither answered nor reported for this long after its dial times out: "
        "`temporaryfailed`, until a late report corrects it",
    )
    max_call_seconds: Seconds = Field(3600, description="A call still up after this is hung up")
    dial_grace_seconds: Seconds = Field(10, description="How long a provider may not know a call that was just dialed")

    # Speech
    recognizer: str | None = Field(None, description="The adapter that turns speech into words")
    default_language: str | None = Field(
        None, description="Language of calls that name none (`hi`, `hi-IN`, `hi-en`); absent: detected"
    )

    # Callbacks and recordings
    callback_timeout_seconds: Seconds = Field(15, description="How long a receiver of callbacks may take to answer")
    callback_concurrency: int = Field(200, ge=1, description="Callbacks one callbacks worker sends at once")
    callback_receiver_concurrency: int = Field(20, ge=1, description="Of those, to one receiver")
    outbound_networks: str = Field(
        "",
        description="Networks besides the public Internet that callbacks and fetched recordings may reach, "
        "comma-separated: `10.0.0.0/8`. For development: `127.0.0.0/8,::1/128`",
    )
    retention_days: int | None = Field(
        None,
        ge=1,
        description="Delete recordings, transcripts and callbacks this many days after their call; absent: never",
    )
    callback_days: int = Field(
        30, ge=7, description="Delete callbacks, with their attempts, this many days after they were written"
    )
    recording_link_seconds: int = Field(3600, ge=60, description="Life of a link to a recording")
    call_log_username: str | None = Field(
        None, description="User name of a system that reports calls to `/api/calls/call-log`"
    )
    call_log_password: SecretStr | None = Field(None, description="Password of that system")

    # The engine
    call_concurrency: int = Field(100, ge=1, description="Tasks one calls worker runs at once")
    transcript_concurrency: int = Field(1, ge=1, description="Recordings one transcripts worker recognizes at once")
    lease_seconds: Seconds = Field(30, description="A task whose worker is silent for this long goes to another worker")
    sweep_seconds: Seconds = Field(1, description="How often a worker looks for overdue tasks")
    shutdown_grace_seconds: Seconds = Field(8, description="How long a stopping worker lets its tasks finish")

    # Monitoring
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which each process serves `/metrics`; 0: any free one, which its log names; absent: none",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of that port")
    metrics_by_user: bool = Field(False, description="Count calls by user, too: one series for each user's id")
    traces_url: AnyHttpUrl | None = Field(
        None,
        description="Where spans are sent, by OTLP over HTTP: `http://collector:4318/v1/traces`; absent: no traces",
    )
    traces_share: float = Field(
        1.0, ge=0, le=1, description="Share of the calls that are traced, if their clients do not say"
    )

    @property
    def base_url(self) -> str:
        """Where clients reach the API."""
        return str(self.public_url) if self.public_url is not None else f"http://{self.host}:{self.port}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of this installation."""
        return ZoneInfo(self.time_zone)

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be the name of a time zone, as Asia/Kolkata or Europe/London") from None
        return name

    @field_validator("outbound_networks")
    @classmethod
    def _are_networks(cls, networks: str) -> str:
        for network in split_list(networks):
            ip_network(network)  # its ValueError says what is wrong
        return networks

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str) -> str:
        for origin in split_list(origins):
            parts = urlsplit(origin)
            if origin != "*" and (
                parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError(f"{origin} is no origin. Write scheme and host only, as https://crm.example.com")
        return origins

    @field_validator("home_country")
    @classmethod
    def _is_country(cls, code: str) -> str:
        if not numbers.is_country(code.upper()):
            raise ValueError("must be the ISO code of a country, as IN, GB or US")
        return code.upper()

    @field_validator("caller_id")
    @classmethod
    def _is_number(cls, written: str | None, info: ValidationInfo) -> str | None:
        if written is None or "home_country" not in info.data:  # home_country is wrong, and reported already
            return written
        return numbers.NumberRules(info.data["home_country"]).read(written).digits

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        if not url.startswith("postgresql+asyncpg://") or not _has_valid_port(url):
            # The URL is not shown, because it may hold a password.
            raise ValueError("must be like postgresql+asyncpg://user:password@host/name")
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://")) or not _has_valid_port(url):
            raise ValueError("must be like redis://:password@host:6379/0")
        return url

    @model_validator(mode="after")
    def _secrets_are_strong(self) -> Self:
        secret = self.secret_key.get_secret_value()
        if len(secret) < 32 or len(set(secret)) < 10:
            raise ValueError(
                "RINGBACK_SECRET_KEY is too weak: use 32 or more random characters, "
                "for example the output of `openssl rand -hex 32`"
            )
        return self

    @classmethod
    def _missing(cls) -> str:
        return "is not set. Set it, or start an instance of your own with `make up`"

    @classmethod
    def _more_sources(cls, settings_cls: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
        instance = data_dir_from_environment() / INSTANCE_FILE
        return (JsonConfigSettingsSource(settings_cls, json_file=instance),)


def split_list(text: str) -> list[str]:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def data_dir_from_environment() -> Path:
    """The data folder before there are settings: `RINGBACK_DATA_DIR`, or `./var`."""
    return Path(os.environ.get("RINGBACK_DATA_DIR") or DEFAULT_DATA_DIR)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once. Raises `SettingsError`, which names every fault."""
    try:
        return Settings()
    except json.JSONDecodeError as error:
        damaged = data_dir_from_environment().absolute() / INSTANCE_FILE
        raise SettingsError(f"{damaged} is damaged ({error}). Delete it, and start Ringback with `make up`") from None
    except ValidationError as error:
        raise Settings.explain(error) from None
