"""A real Asterisk and real SIP telephones. Without them, these tests fail.

Each test process has one Asterisk for all its tests, because a test that kills Asterisk must not disturb the others.
"""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.telephony.asterisk import Asterisk
from lab.asterisk import AsteriskServer, free_port
from lab.phones import Phones
from tests.asterisk.lab_installation import Lab, LabInstallation, MakeInstallation
from tests.speech import speech_endpoint

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
    """Makes adapters with their own Stasis applications, and closes them."""
    made: list[Asterisk] = []

    def make(**changed: Any) -> Asterisk:
        made.append(lab.provider(**changed))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
async def make_installation(lab: Lab, tmp_path: Path) -> AsyncIterator[MakeInstallation]:
    """Makes installations with other settings, or for tests that break them."""
    opened: list[LabInstallation] = []

    async def make(*workers: str, ready: str = "/readyz", others: bool = True, **settings: str) -> LabInstallation:
        installation = LabInstallation(lab, tmp_path / f"installation-{len(opened)}", **settings)
        opened.append(installation)
        await installation.open(*workers, ready=ready, others=others)
        return installation

    yield make
    for installation in opened:
        await installation.close()


@pytest.fixture(scope="session")
async def cheap_speech() -> AsyncIterator[dict[str, str]]:
    async with speech_endpoint() as settings:
        yield settings


@pytest.fixture(scope="session")
async def installation(
    lab: Lab, cheap_speech: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabInstallation]:
    """One installation for the tests that need no other settings."""
    opened = LabInstallation(lab, tmp_path_factory.mktemp("installation"), **cheap_speech)
    try:
        await opened.open("calls-1", "calls-2")
        yield opened
    finally:
        await opened.close()
