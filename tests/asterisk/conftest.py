"""A real Asterisk and real SIP telephones, once for the whole run. Where they cannot be had these tests fail."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.telephony.asterisk import Asterisk
from lab.asterisk import AsteriskServer, free_port
from lab.phones import Phones
from tests.asterisk.office import Lab, MakeOffice, Office

CONVERSATION = Path(__file__).parents[1] / "audio/call_callback.wav"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("lab")
    phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), conversation=CONVERSATION)
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

    def make(**changed: Any) -> Asterisk:
        made.append(lab.provider(**changed))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
async def make_office(lab: Lab, tmp_path: Path) -> AsyncIterator[MakeOffice]:
    """Installations with settings of their own, or to be broken."""
    opened: list[Office] = []

    async def make(*workers: str, ready: str = "/readyz", **settings: str) -> Office:
        office = Office(lab, tmp_path / f"office-{len(opened)}", **settings)
        opened.append(office)
        await office.open(*workers, ready=ready)
        return office

    yield make
    for office in opened:
        await office.close()


@pytest.fixture(scope="session")
async def office(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """One whole installation for the tests that break nothing."""
    opened = Office(lab, tmp_path_factory.mktemp("office"))
    try:
        await opened.open("calls-1", "calls-2")
        yield opened
    finally:
        await opened.close()
