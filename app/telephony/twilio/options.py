"""The account at Twilio or a copy of it, and how its calls are made."""

from typing import Self

from pydantic import AnyHttpUrl, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from app.options import Options


class TwilioOptions(Options):
    """With `RINGBACK_TELEPHONY_PROVIDER=twilio`. Required: `account_sid`, and `auth_token` or an API key."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_TWILIO_")

    account_sid: str = Field(description="The account, as `AC…`; at SignalWire the project's id", pattern=r"^[\w-]+$")
    auth_token: SecretStr | None = Field(
        None, description="The account's token. It signs requests, and checks the signatures of notifications"
    )
    api_key: str | None = Field(
        None, description="An API key to use instead of the token, as `SK…`", pattern=r"^[\w-]+$"
    )
    api_secret: SecretStr | None = Field(None, description="That key's secret")
    base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://api.twilio.com"),
        description="Where the REST interface is; SignalWire's is `https://SPACE.signalwire.com/api/laml`",
    )
    caller_id: str | None = Field(
        None,
        description="The number both people see if a call has no other, as `+14155550100`: bought or verified there",
    )
    agent_channel: int = Field(1, ge=1, le=2, description="The channel of recordings that has the agent: `1` or `2`")
    announcement: AnyHttpUrl | None = Field(
        None, description="A sound file that the agent hears before the customer is dialed, as an URL"
    )
    customer_announcement: AnyHttpUrl | None = Field(
        None, description="What the customer hears before both are joined: the URL of a TwiML document, as a TwiML Bin"
    )
    inline: bool = Field(
        True,
        description="Send the instructions for a call with its order; `false` for copies that ask this server for them",
    )
    delete_recordings: bool = Field(False, description="Delete a recording there once it is stored here")

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        if (self.api_key is None) != (self.api_secret is None):
            raise ValueError("api_key and api_secret belong together: set both, or none")
        if self.auth_token is None and self.api_key is None:
            raise ValueError("auth_token is not set. Set it, or api_key and api_secret")
        return self

    def credentials(self) -> tuple[str, str]:
        """User name and password of requests."""
        if self.api_key is not None and self.api_secret is not None:
            return self.api_key, self.api_secret.get_secret_value()
        return self.account_sid, "" if self.auth_token is None else self.auth_token.get_secret_value()
