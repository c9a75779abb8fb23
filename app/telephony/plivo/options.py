"""The account at Plivo or Vobiz, and how its calls are made."""

import re
from typing import Literal

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.numbers import PhoneNumber
from app.options import Options


class _AccountOptions(Options):
    """What both have."""

    auth_id: str = Field(description="The account, as `MA…`", pattern=r"^[\w-]+$")
    auth_token: SecretStr = Field(description="The account's token. It also checks the signatures of notifications")
    base_url: AnyHttpUrl = Field(AnyHttpUrl("https://api.plivo.com/v1"), description="Where the REST interface is")
    caller_id: str | None = Field(
        None, description="The number both people see if a call has no other, as `+14155550100`: rented there"
    )
    agent_channel: Literal[1, 2] = Field(1, description="The channel of recordings that has the agent")
    announcement: AnyHttpUrl | None = Field(
        None, description="A sound file that the agent hears before the customer is dialed, as an URL"
    )
    delete_recordings: bool = Field(False, description="Delete a recording there once it is stored here")

    @field_validator("agent_channel", mode="before")
    @classmethod
    def _is_channel(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("caller_id")
    @classmethod
    def _is_number(cls, written: str | None) -> str | None:
        if written is None:
            return None
        digits = re.sub(r"[\s().-]", "", written).removeprefix("+")
        if not re.fullmatch(r"[1-9][0-9]{7,14}", digits):
            raise ValueError("must be a number with its country code, as +14155550100")
        return digits

    def caller(self, of_order: PhoneNumber | None) -> PhoneNumber | None:
        """The number to show: the order's, or the option's."""
        if of_order is not None or self.caller_id is None:
            return of_order
        return PhoneNumber(self.caller_id)


class PlivoOptions(_AccountOptions):
    """With `RINGBACK_TELEPHONY_PROVIDER=plivo`. It needs a public address of this server."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_PLIVO_")


class VobizOptions(_AccountOptions):
    """With `RINGBACK_TELEPHONY_PROVIDER=vobiz`. It needs a public address of this server."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_VOBIZ_")

    base_url: AnyHttpUrl = Field(AnyHttpUrl("https://api.vobiz.ai/api/v1"), description="Where the REST interface is")
