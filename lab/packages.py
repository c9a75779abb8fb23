"""Programs from Debian packages in private folders: without root, and without installing anything.

apt fetches the packages, with its own state, from the archive that this machine is configured for, and checks their
signatures. They come from Debian unstable, which has Asterisk 22, and run with its own loader.
"""

import fcntl
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SUITE = "sid"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Dependencies that only install scripts need, which do not run here.
_NOT_NEEDED = re.compile(
    r"gnupg|gpg|dirmngr|pinentry|perl|libperl|adduser|passwd|login\.defs|base-passwd|debconf|tzdata|libsemanage|libsepol"
    r"|libpam-modules|readline-common|pci\.ids|libksba8|libnpth0|libassuan9"
)


class PackagesError(Exception):
    """The programs cannot be fetched. The text says what to do."""


@dataclass(frozen=True)
class Bundle:
    """Packages that share a folder."""

    folder: str
    wanted: tuple[str, ...]
    with_dependencies: bool = True


ASTERISK = Bundle("debian", ("asterisk", "sip-tester"))
PROMTOOL = Bundle("debian-promtool", ("promtool", "libc6"), with_dependencies=False)
"""Prometheus's own check of alert rules."""
PGBOUNCER = Bundle("debian-pgbouncer", ("pgbouncer",))
SYSTEMD = Bundle("debian-systemd", ("systemd",))
"""systemd's own check of units."""


def folder(bundle: Bundle = ASTERISK) -> Path:
    """The folder of the programs, shared by every clone of this project."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ringback" / bundle.folder


def fetch(bundle: Bundle = ASTERISK) -> Path:
    """The folder with the unpacked programs, which are fetched if they are missing. Raises `PackagesError`."""
    base = folder(bundle)
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "complete").exists():
            _download(base, bundle)
            _unpack(base)
            (base / "complete").touch()
    return base / "root"


def command(root: Path, program: str) -> list[str]:
    """The command line that starts one of the programs."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    if not libraries.exists():
        libraries = root / f"usr/lib/{os.uname().machine}-linux-gnu"
    paths = [libraries, libraries / "libodbc", libraries / "systemd"]
    (loader,) = [*(root / "usr/lib64").glob("ld-linux*"), *(root / "usr/lib").glob("ld-linux-aarch64*")][:1]
    return [str(loader), "--library-path", ":".join(map(str, paths)), str(root / "usr" / program)]


def _download(base: Path, bundle: Bundle) -> None:
    archives = base / "debs"
    for name in ("state/lists/partial", "cache/archives/partial", "empty", "debs"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "status").touch()
    (base / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_archive()} {_SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": base / "sources.list",
        "Dir::Etc::sourceparts": base / "empty",
        "Dir::Etc::preferencesparts": base / "empty",
        "Dir::State": base / "state",
        "Dir::State::status": base / "status",
        "Dir::Cache": base / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"])
    names = list(bundle.wanted)
    if bundle.with_dependencies:
        planned = _run([*apt, "install", "--yes", "--no-install-recommends", "--print-uris", *names])
        found = sorted(set(re.findall(r"^'[^']*' ([^_ ]*)_", planned, re.MULTILINE)))
        names = [name for name in found if not _NOT_NEEDED.match(name)]
    _run([*apt, "download", *names], cwd=archives)


def _archive() -> str:
    """The Debian archive that this machine uses."""
    listed = _run(["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(SUITE)"])
    for line in listed.splitlines():
        site, _, origin = line.partition(" ")
        if origin.startswith("Debian ") and "security" not in line:
            return site
    raise PackagesError("The lab fetches programs with apt, from a Debian archive that apt is configured for")


def _unpack(base: Path) -> None:
    root = base / "root"
    for name in ("lib", "lib64", "bin", "sbin"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for package in sorted((base / "debs").glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)],
                stdin=unpacking.stdout,
                check=True,
            )
        if unpacking.returncode:
            raise PackagesError(f"{package} cannot be unpacked")


def _run(arguments: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PackagesError(
            f"The lab needs Debian's {error.filename}; on other systems use `docker compose`"
        ) from error
    if done.returncode:
        raise PackagesError(f"{' '.join(arguments[:1])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
