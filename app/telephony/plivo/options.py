"""The account at Plivo or Vobiz, and how its calls are made."""

from pydantic import AnyHttpUrl, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.options import Options


class _AccountOptions(Options):
    """What both have."""

    auth_id: str = Field(description="The account, as `MA…`", pattern=r"^[\w-]+$")
    auth_token: SecretStr = Field(description="The account's token. It also checks the signatures of notifications")
    base_url: AnyHttpUrl = Field(AnyHttpUrl("https://api.plivo.com/v1"), description="Where the REST interface is")
    caller_id: str | None = Field(
        None, description="The number both people see if a call has no other, as `+14155550100`: rented there"
    )
    agent_channel: int = Field(1, ge=1, le=2, description="The channel of recordings that has the agent: `1` or `2`")
    announcement: AnyHttpUrl | None = Field(
        None, description="A sound file that the agent hears before the customer is dialed, as an URL"
    )
    delete_recordings: bool = Field(False, description="Delete a recording there once it is stored here")


class PlivoOptions(_AccountOptions):
    """With `RINGBACK_TELEPHONY_PROVIDER=plivo`. It needs a public address of this server."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_PLIVO_")


class VobizOptions(_AccountOptions):
    """With `RINGBACK_TELEPHONY_PROVIDER=vobiz`. It needs a public address of this server."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_VOBIZ_")

    base_url: AnyHttpUrl = Field(AnyHttpUrl("https://api.vobiz.ai/api/v1"), description="Where the REST interface is")
