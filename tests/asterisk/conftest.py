"""A real Asterisk and real SIP telephones, once for the whole run. Where they cannot be had these tests fail."""

import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.asterisk.options import NumberFormat
from app.telephony.simulator import CONVERSATIONS
from lab.asterisk import PASSWORD, USERNAME, AsteriskServer, free_port
from lab.phones import Phones

RING_SECONDS = 3.0


class Lab:
    def __init__(self, server: AsteriskServer, phones: Phones) -> None:
        self.server = server
        self.phones = phones

    def options(self, **changed: object) -> AsteriskOptions:
        values: dict[str, object] = {
            "url": self.server.url,
            "username": USERNAME,
            "password": SecretStr(PASSWORD),
            "app": f"test-{secrets.token_hex(4)}",
            "dial": "PJSIP/{number}@trunk-from",
            "number_format": NumberFormat.E164,
            "ami_address": f"127.0.0.1:{self.server.ami_port}",
        }
        return AsteriskOptions(**{**values, **changed})  # type: ignore[arg-type]

    def provider(self, **changed: object) -> Asterisk:
        return Asterisk(self.options(**changed), longest_ring_seconds=RING_SECONDS)

    def number(self, behaviour: str) -> str:
        """A number nobody else dials, whose telephone does this (`lab/phones.xml`)."""
        return f"91{behaviour}{secrets.randbelow(10**7):07}"

    def invites(self, number: str) -> int:
        """How often this telephone was called."""
        return len([invite for invite in self.phones.invites() if invite.number.endswith(number.removeprefix("91"))])


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("lab")
    voice = CONVERSATIONS / "callback.wav"
    phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), agent=voice, customer=voice)
    server = AsteriskServer(folder / "asterisk", phones_port=phones.port)
    try:
        phones.start()
        server.start()
        yield Lab(server, phones)
    finally:
        server.stop()
        phones.stop()


@pytest.fixture
async def make_provider(lab: Lab) -> AsyncIterator[Callable[..., Asterisk]]:
    """Adapters with an application of their own, closed in the end."""
    made: list[Asterisk] = []

    def make(**changed: object) -> Asterisk:
        made.append(lab.provider(**changed))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()
