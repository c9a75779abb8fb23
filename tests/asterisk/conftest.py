"""A real Asterisk and real SIP telephones, once for the whole run. Where they cannot be had these tests fail."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.telephony.asterisk import Asterisk
from lab.asterisk import AsteriskServer, free_port
from lab.phones import Phones
from tests.asterisk.office import Lab, MakeOffice, Office


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("lab")
    agent, customer = _voices(folder)
    phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), agent=agent, customer=customer)
    server = AsteriskServer(folder / "asterisk", phones_port=phones.port)
    try:
        phones.start()
        server.start()
        yield Lab(server, phones)
    finally:
        server.stop()
        phones.stop()


def _voices(folder: Path) -> tuple[Path, Path]:
    """The two sides of the reference conversation. The agent answers some half a second before the customer, and is
    silent for so much longer, which keeps the two in step."""
    samples, rate = soundfile.read(Path(__file__).parents[1] / "audio/call_callback.wav", always_2d=True)
    paths = folder / "agent.wav", folder / "customer.wav"
    for channel, (path, silence) in enumerate(zip(paths, (1.53, 1.0), strict=True)):
        soundfile.write(path, np.concatenate([np.zeros(int(silence * rate)), samples[:, channel]]), rate)
    return paths


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
