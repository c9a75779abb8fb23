"""How to reach an Asterisk and how it dials, as settings of its own: `RINGBACK_ASTERISK_` and the name."""

from enum import StrEnum
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class NumberFormat(StrEnum):
    """How the trunk wants a number that is stored as digits with its country code."""

    DIGITS = "digits"
    E164 = "e164"
    NATIONAL = "national"


class AsteriskOptions(BaseSettings):
    """With `RINGBACK_TELEPHONY_PROVIDER=asterisk`. Only the first three are needed."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_ASTERISK_", extra="ignore", frozen=True)

    url: AnyHttpUrl = Field(description="Asterisk's HTTP server, as `http://host:8088`")
    username: str = Field(description="User of `ari.conf`, and of `manager.conf` unless AMI has its own")
    password: SecretStr = Field(description="That user's password")
    app: str = Field("ringback", min_length=1, description="Name of the Stasis application; one for each installation")
    dial: str = Field("PJSIP/{number}@trunk", description="What is dialled: technology, number and your trunk's name")
    number_format: NumberFormat = Field(
        NumberFormat.E164, description="How the trunk wants numbers: `digits`, `e164` (with +) or `national` (with 0)"
    )
    country_code: str = Field("91", pattern="^[0-9]{1,3}$", description="What `national` replaces by 0")
    ami_address: str | None = Field(
        None, description="AMI, which starts the recording, as `host:5038`; absent: port 5038 of the URL's host"
    )
    ami_username: str | None = Field(None, description="User of `manager.conf`, if it is another")
    ami_password: SecretStr | None = Field(None, description="That user's password")

    @field_validator("dial")
    @classmethod
    def _has_a_place_for_the_number(cls, template: str) -> str:
        if template.count("{number}") != 1 or "/" not in template or template.replace("{number}", "").count("{"):
            raise ValueError("must hold {number} once, like PJSIP/{number}@trunk")
        return template

    @field_validator("ami_address")
    @classmethod
    def _is_host_and_port(cls, address: str | None) -> str | None:
        if address is not None:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("must be like host:5038")
        return address

    def endpoint(self, number: str) -> str:
        """What to dial for this number."""
        return self.dial.replace("{number}", self.spell(number))

    def spell(self, number: str) -> str:
        """Digits with their country code, as the trunk wants them."""
        if self.number_format is NumberFormat.DIGITS:
            return number
        if self.number_format is NumberFormat.E164:
            return f"+{number}"
        national = number.removeprefix(self.country_code)
        return f"0{national}" if national != number else f"00{number}"

    def ami(self) -> tuple[str, int]:
        """Host and port of AMI."""
        if self.ami_address is None:
            return urlsplit(str(self.url)).hostname or "", 5038
        host, _, port = self.ami_address.rpartition(":")
        return host.strip("[]"), int(port)
