"""One Asterisk in its own folder, with the configuration of `deploy/asterisk`."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import packages

_ROOT = Path(__file__).parents[1]
USERNAME = "ringback"
PASSWORD = "only-for-the-lab"  # it listens on loopback only


class AsteriskError(Exception):
    """Asterisk does not start. The text has its last output."""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A free port on loopback."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AsteriskServer:
    """Can be started and stopped several times. `kill` is SIGKILL."""

    def __init__(
        self, folder: Path, *, phones_port: int = 0, ari_port: int | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """`more` is added to configuration files, by their names. With it, the server has no trunks of the lab."""
        self._folder = folder
        self._more = dict(more or {})
        self.recording_folder = folder / "spool/recording"
        self._phones_port = phones_port
        self.ari_port = ari_port or free_port()
        self.ami_port = free_port()
        self.sip_port = free_port(socket.SOCK_DGRAM)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ari_port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def options(self) -> dict[str, str]:
        """The options of a provider that dials through this Asterisk."""
        return {
            "url": self.url,
            "username": USERNAME,
            "password": PASSWORD,
            "ami_address": f"127.0.0.1:{self.ami_port}",
            "dial": "PJSIP/{number}@trunk-from",
        }

    def settings(self) -> dict[str, str]:
        """The environment that makes Ringback dial through this Asterisk."""
        named = {f"RINGBACK_ASTERISK_{name.upper()}": value for name, value in self.options().items()}
        return {"RINGBACK_TELEPHONY_PROVIDER": "asterisk", **named}

    def start(self) -> None:
        """Start it. Returns when it accepts requests. Raises `AsteriskError`."""
        self._configure()
        with (self._folder / "log/stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(), "-f"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LANG": "C"},
                preexec_fn=_many_files,  # only a system call
                start_new_session=True,
            )
        (self._folder / "pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + 60
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self._folder / "log/stdout.log").read_text(errors="replace")
                raise AsteriskError(f"Asterisk does not start: {words[-1000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it accepts requests and knows its trunks."""
        try:
            self._ari("/endpoints" if self._more else "/endpoints/PJSIP/trunk-from")
        except OSError:
            return False
        return True

    def left(self) -> list[str]:
        """The channels, bridges and recordings that it holds."""
        found = [f"channel {channel['id']}" for channel in self._ari("/channels")]
        found += [f"bridge {bridge['id']}" for bridge in self._ari("/bridges")]
        return found + [f"recording {path.name}" for path in self.recordings()]

    def channels(self) -> list[str]:
        """Every channel that it holds."""
        return [str(channel["id"]) for channel in self._ari("/channels")]

    def answered(self) -> list[str]:
        """The channels whose telephone has answered."""
        return [str(channel["id"]) for channel in self._ari("/channels") if channel["state"] == "Up"]

    def _ari(self, path: str) -> Any:
        login = b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(f"{self.url}/ari{path}", headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def run(self, command: str) -> str:
        """Run a command of Asterisk's own command line, as `core show channels`."""
        done = subprocess.run([*self._command(), "-rx", command], capture_output=True, text=True, check=False)
        return done.stdout

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Until `thaw`, it accepts requests and answers none."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def recordings(self) -> list[Path]:
        return list(self.recording_folder.iterdir())

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self._process.send_signal(signum)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _command(self) -> list[str]:
        root = packages.fetch()
        return [*packages.command(root, "sbin/asterisk"), "-C", str(self._folder / "etc/asterisk.conf")]

    def _configure(self) -> None:
        root = packages.fetch()
        etc = self._folder / "etc"
        for name in ("etc", "lib", "run", "log", "spool/recording", "spool/monitor"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        rtp = 20_000 + 100 * (self.ari_port % 300)
        variables = {
            "RINGBACK_ASTERISK_USERNAME": USERNAME,
            "RINGBACK_ASTERISK_PASSWORD": PASSWORD,
            "ARI_ADDRESS": "127.0.0.1",
            "ARI_PORT": str(self.ari_port),
            "AMI_PORT": str(self.ami_port),
            "SIP_ADDRESS": "127.0.0.1",
            "SIP_PORT": str(self.sip_port),
            "RTP_FIRST": str(rtp),
            "RTP_LAST": str(rtp + 3999),
        }
        subprocess.run([_ROOT / "deploy/asterisk/configure.sh", etc], env={**os.environ, **variables}, check=True)
        trunks = "" if self._more else (_ROOT / "lab/etc/pjsip_wizard.conf").read_text()
        (etc / "pjsip_wizard.conf").write_text(
            trunks.replace("@PHONES@", f"127.0.0.1:{self._phones_port}").replace("@SIP@", f"127.0.0.1:{self.sip_port}")
        )
        for name, added in self._more.items():
            with (etc / name).open("a") as file:
                file.write(f"\n{added}\n")
        (modules,) = root.glob("usr/lib/*/asterisk/modules")
        (etc / "asterisk.conf").write_text(
            "[directories]\n"
            f"astetcdir => {etc}\n"
            f"astmoddir => {modules}\n"
            f"astvarlibdir => {self._folder}/lib\n"
            f"astdbdir => {self._folder}/lib\n"
            f"astkeydir => {self._folder}/lib\n"
            f"astdatadir => {root}/usr/share/asterisk\n"
            f"astagidir => {self._folder}/lib\n"
            f"astspooldir => {self._folder}/spool\n"
            f"astrundir => {self._folder}/run\n"
            f"astlogdir => {self._folder}/log\n"
            "[options]\n"
            "documentation_language = en_US\n"
        )
        for name in (
            "pjproject",
            "websocket_client",
            "stasis",
            "cdr",
            "cel",
            "features",
            "sorcery",
            "udptl",
            "acl",
            "ccss",
            "indications",
            "codecs",
        ):
            if not (etc / f"{name}.conf").exists():
                shutil.copy("/dev/null", etc / f"{name}.conf")


def _many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
