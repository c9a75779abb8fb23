"""How to reach an Asterisk, and how it dials."""

from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.numbers import Callee, NumberFormat, PhoneNumber
from app.options import Options

EXTENSION_REFUSAL = "the option extension_dial (RINGBACK_ASTERISK_EXTENSION_DIAL) does not say how to dial one"


class AsteriskOptions(Options):
    """With `RINGBACK_TELEPHONY_PROVIDER=asterisk`. Only the first three are required."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_ASTERISK_")

    removed = {  # noqa: RUF012
        "RINGBACK_ASTERISK_COUNTRY_CODE": "Remove it, and set RINGBACK_HOME_COUNTRY to an ISO code, as IN or GB"
    }

    url: AnyHttpUrl = Field(description="Asterisk's HTTP server, as `http://host:8088`")
    username: str = Field(description="User of `ari.conf`, and of `manager.conf` unless AMI has its own")
    password: SecretStr = Field(description="That user's password")
    app: str | None = Field(
        None, min_length=1, description="Name of the Stasis application; absent: one of this installation alone"
    )
    dial: str = Field("PJSIP/{number}@trunk", description="What is dialed: technology, number and your trunk's name")
    number_format: NumberFormat = Field(
        NumberFormat.E164,
        description="How the trunk wants numbers: `digits`, `e164` (with +) or `national` (as dialed at home, with 0)",
    )
    extension_dial: str | None = Field(
        None,
        description="What is dialed for an agent of 2 to 7 digits, as `PJSIP/{number}`; absent: they are refused",
    )
    ami_address: str | None = Field(
        None, description="AMI, which starts the recording, as `host:5038`; absent: port 5038 of the URL's host"
    )
    ami_username: str | None = Field(None, description="User of `manager.conf`, if it is another")
    ami_password: SecretStr | None = Field(None, description="That user's password")

    announcement: str | None = Field(
        None,
        pattern=r"^(sound|recording|tone):\S+$",
        description="A sound of Asterisk that both people hear before they are joined, as `sound:custom/recorded`",
    )

    @field_validator("dial", "extension_dial")
    @classmethod
    def _has_a_place_for_the_number(cls, template: str | None) -> str | None:
        if template is None:
            return None
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

    def endpoint(self, callee: Callee, home_country: str) -> str:
        """The endpoint to dial."""
        if isinstance(callee, PhoneNumber):
            return self.dial.replace("{number}", callee.format(self.number_format, home_country))
        if self.extension_dial is None:
            raise ValueError(EXTENSION_REFUSAL)
        return self.extension_dial.replace("{number}", callee.digits)

    def ami(self) -> tuple[str, int]:
        """Host and port of AMI."""
        if self.ami_address is None:
            return urlsplit(str(self.url)).hostname or "", 5038
        host, _, port = self.ami_address.rpartition(":")
        return host.strip("[]"), int(port)
