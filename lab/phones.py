"""Telephones: one SIPp that plays all of them. The dialed number decides what its telephone does (`phones.xml`)."""

import re
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile

from lab import packages

_SCENARIO = Path(__file__).parent / "phones.xml"
_LINE = re.compile(
    r"INVITE at=\S+\s+\S+\s+(?P<at>[0-9.]+) id=(?P<id>\S+) to=[^<]*<sip:\+?(?P<number>[0-9]*)@[^>]*>[^|]*"
    r"\| from=(?P<from>[^|]*)\| pai=(?P<pai>[^|]*)\|"
    r" contact=[^|]*:(?P<port>[0-9]+)[^|:]*\|"
)


@dataclass(frozen=True, slots=True)
class Invite:
    """One call that reached a telephone. A retransmission is the same call. A second Call-ID is another."""

    number: str
    at: datetime
    call_id: str
    shown_in_from: str
    shown_in_pai: str
    from_port: int
    """The SIP port of the Asterisk that called."""


class Phones:
    """They play the two sides of `conversation` (agent left, customer right, 8 kHz) in a loop.

    The agent answers half a second before the customer. So the agent's side starts with that much silence, which keeps
    the two in step.
    """

    def __init__(self, folder: Path, *, port: int, conversation: Path) -> None:
        self.folder = folder
        self.port = port
        self._conversation = conversation
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(self._conversation, always_2d=True)
        for channel, (side, silence) in enumerate({"agent": 0.53, "customer": 0.0}.items()):
            voice = np.concatenate([np.zeros(int(silence * rate)), samples[:, channel]])
            soundfile.write(self.folder / f"{side}.alaw", voice, rate, format="RAW", subtype="ALAW")
        media = 32_000 + 2 * (self.port % 8000)
        with (self.folder / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *packages.command(packages.fetch(), "bin/sipp"),
                    *("-sf", str(_SCENARIO), "-i", "127.0.0.1", "-p", str(self.port)),
                    *("-mi", "127.0.0.1", "-mp", str(media), "-rtp_threadtasks", "100", "-nostdin", "-aa"),
                    *("-trace_logs", "-log_file", "invites.log", "-trace_err", "-error_file", "errors.log"),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        time.sleep(0.3)
        if self._process.poll() is not None:
            raise RuntimeError(f"SIPp does not start: {(self.folder / 'stdout.log').read_text()[-1000:]}")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def invites(self) -> list[Invite]:
        """Every INVITE so far, in order."""
        log = self.folder / "invites.log"
        if not log.exists():
            return []
        return [
            Invite(
                match["number"],
                datetime.fromtimestamp(float(match["at"]), UTC),
                match["id"],
                match["from"].strip(),
                match["pai"].strip(),
                int(match["port"]),
            )
            for match in _LINE.finditer(log.read_text(errors="replace"))
        ]

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
