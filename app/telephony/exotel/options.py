"""An Exotel account, and how it is used."""

from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.numbers import NumberFormat
from app.options import Options


class ExotelOptions(Options):
    """With `RINGBACK_TELEPHONY_PROVIDER=exotel`. Only the first three are required."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_EXOTEL_")

    account_sid: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Account SID, from API Settings")
    api_key: str = Field(min_length=1, description="API key, from API Settings")
    api_token: SecretStr = Field(description="That key's token")
    url: AnyHttpUrl = Field(
        AnyHttpUrl("https://api.exotel.com"),
        description="The account's region: `https://api.exotel.com` (Singapore), `https://api.in.exotel.com` (Mumbai)",
    )
    caller_id: str | None = Field(
        None,
        min_length=1,
        description="ExoPhone that both people are shown, if neither the call nor Ringback names one",
    )
    number_format: NumberFormat = Field(
        NumberFormat.E164,
        description="How numbers are sent: `e164` (with +) or `national` (as dialed at home, with 0)",
    )
    agent_channel: int = Field(1, ge=1, le=2, description="The channel of recordings that has the agent: `1` or `2`")
    recording_format: Literal["mp3", "mp3-hq"] = Field("mp3", description="`mp3`, or `mp3-hq` for larger, better files")
    timezone: str = Field("Asia/Kolkata", description="Time zone of the times that the account's API tells")
    legs_url: AnyHttpUrl | None = Field(
        None,
        description="Call Legs API, if Exotel has enabled it for the account: `https://ccm-api.exotel.com` or "
        "`https://ccm-api.in.exotel.com`; absent: not asked",
    )

    @field_validator("number_format")
    @classmethod
    def _is_understood(cls, number_format: NumberFormat) -> NumberFormat:
        if number_format is NumberFormat.DIGITS:
            raise ValueError("must be e164 or national: Exotel takes digits without a prefix for a number at home")
        return number_format

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError):
            raise ValueError("must be the name of a time zone, as Asia/Kolkata or UTC") from None
        return name
