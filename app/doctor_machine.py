"""What `app.doctor` looks at besides the servers: variables, disk, clocks, the public address and its certificate."""

import asyncio
import difflib
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

import aiohttp

from app import parent_watch, providers
from app.health import INSTALLATION_HEADER
from app.options import Options, SettingsError
from app.outbound import AddressRefused
from app.security import installation_id
from app.settings import Settings, split_list

_OTHER_VARIABLES = frozenset({"RINGBACK_DEBUG", parent_watch.VARIABLE, "RINGBACK_CHROMIUM", "RINGBACK_SCREENSHOTS"})
_LITTLE_BYTES, _NONE_BYTES = 2 * 1024**3, 200 * 1024**2
_CERTIFICATE_DAYS = 14
_HTTP_CLOCK_SECONDS = 5.0  # its times are whole seconds
_CONNECT_SECONDS = 5.0
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/\s@]*@")


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CheckLine:
    """What was examined, whether it is in order, what was seen, and how to fix it."""

    check: str
    level: Level
    seen: str
    fix: str = ""


def ok(check: str, seen: str) -> CheckLine:
    return CheckLine(check, Level.OK, seen)


def warning(check: str, seen: str, fix: str) -> CheckLine:
    return CheckLine(check, Level.WARNING, seen, fix)


def error(check: str, seen: str, fix: str) -> CheckLine:
    return CheckLine(check, Level.ERROR, seen, fix)


def cause_of(failed: BaseException) -> str:
    """The cause in one line, without a password."""
    said = str(getattr(failed, "orig", None) or failed).strip()
    line = said.splitlines()[0] if said else type(failed).__name__
    return _PASSWORD_IN_URL.sub("", line)


# Variables


def examine_settings() -> list[CheckLine]:
    """What is wrong with the variables of this shell, apart from what `Settings` refuses."""
    lines = []
    known = list_variables()
    for name in sorted(os.environ):
        if name.startswith("RINGBACK_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            fix = f"Did you mean {near[0]}?" if near else "Remove it. docs/settings.md lists every setting"
            lines.append(warning("settings", f"{name} is not a setting, and does nothing", fix))
    try:
        providers.refuse_removed_variables()
    except SettingsError as wrong:
        lines.append(error("settings", str(wrong), "Remove the variable"))
    return lines


def list_variables() -> list[str]:
    """Every variable that something reads."""
    adapters = [adapter.options for adapter in providers.telephony_kinds().values()]
    groups: set[type[Options]] = {Settings, *providers.OPTIONS.values(), *adapters}
    known = {group.variable(option) for group in groups for option in group.model_fields}
    return sorted(known | {old for group in groups for old in (*group.renamed, *group.removed)} | _OTHER_VARIABLES)


# This machine


def examine_machine(settings: Settings) -> list[CheckLine]:
    """Settings that are dangerous, and the data folder."""
    lines = []
    if "*" in split_list(settings.cors_origins):
        fix = "Name the web pages that may use the API"
        lines.append(warning("settings", "RINGBACK_CORS_ORIGINS allows every web page", fix))
    if any(ip_network(network).is_loopback for network in split_list(settings.outbound_networks)):
        fix = "Remove loopback from RINGBACK_OUTBOUND_NETWORKS"
        lines.append(warning("settings", "Callbacks may reach this machine, which is for development", fix))
    lines = lines or [ok("settings", "Valid")]
    return [*lines, _examine_folder(settings.data_dir)]


def _examine_folder(folder: Path) -> CheckLine:
    try:
        with NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"x" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as failed:
        fix = "Create it, correct its owner, or choose another RINGBACK_DATA_DIR"
        return error("disk", f"{folder} cannot be written: {failed.strerror}", fix)
    seen = f"{free / 1024**3:.1f} GB free in {folder}"
    if free < _NONE_BYTES:
        return error("disk", seen, "Make room now, or set RINGBACK_RETENTION_DAYS")
    if free < _LITTLE_BYTES:
        return warning("disk", seen, "Make room, or set RINGBACK_RETENTION_DAYS")
    return ok("disk", seen)


def compare_clocks(whose: str, theirs: float, before: datetime, after: datetime, allowed: float) -> CheckLine:
    """This machine's clock beside another, which was read between `before` and `after`."""
    early, late = before.timestamp() - theirs, theirs - after.timestamp()
    apart = max(early, late, 0.0)
    if apart > allowed:
        return warning("clock", f"This machine's clock and {whose} differ by {apart:.1f} s", "Run NTP on both machines")
    return ok("clock", f"As {whose}")


# The public address


async def examine_address(url: str, settings: Settings) -> list[CheckLine]:
    """Whether clients that go to this URL reach this installation, safely."""
    parts = urlsplit(url)
    host, lines = parts.hostname or "", []
    if parts.scheme == "https":
        fault = await find_tls_fault(host, parts.port or 443)
        if fault is not None:
            fix = "Renew the certificate, name this host in it, or correct RINGBACK_PUBLIC_URL and the proxy"
            return [error("address", f"{url}: {fault}", fix)]
        days = await asyncio.to_thread(_days_left, host, parts.port or 443)
        if days < _CERTIFICATE_DAYS:
            fix = "Renew it, and find out why that did not happen by itself"
            lines.append(warning("address", f"The certificate of {host} ends in {days:.0f} days", fix))
        else:
            lines.append(ok("address", f"The certificate of {host} is valid for {days:.0f} days"))
    elif not _is_private(host):
        lines.append(
            warning("address", f"{url} is not encrypted, so passwords and recordings are not", "Put TLS in front")
        )
    lines += await _ask(url, settings)
    return lines


async def _ask(url: str, settings: Settings) -> list[CheckLine]:
    timeout = aiohttp.ClientTimeout(total=_CONNECT_SECONDS)
    before = datetime.now(UTC)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url.rstrip('/')}/healthz", ssl=ssl.create_default_context()) as answer,
        ):
            said, status = answer.headers, answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as failed:
        fix = "Start the API, or correct RINGBACK_PUBLIC_URL and the proxy"
        return [error("address", f"{url} does not answer: {cause_of(failed)}", fix)]
    ours = installation_id(settings.secret_key.get_secret_value())
    seen = said.get(INSTALLATION_HEADER)
    if seen is None:
        fix = "Correct RINGBACK_PUBLIC_URL, or what the proxy forwards to"
        return [error("address", f"{url}/healthz answers {status}, and not as Ringback does", fix)]
    if seen != ours:
        fix = "Use the same RINGBACK_SECRET_KEY everywhere, or correct RINGBACK_PUBLIC_URL"
        return [error("address", f"{url} is another installation, or has another secret key", fix)]
    lines = [ok("address", f"{url} reaches this installation")]
    with suppress(KeyError, ValueError):
        theirs = parsedate_to_datetime(said["Date"]).timestamp()
        line = compare_clocks(f"that of {url}", theirs, before, datetime.now(UTC), _HTTP_CLOCK_SECONDS)
        lines += [line] if line.level is not Level.OK else []
    return lines


async def find_tls_fault(host: str, port: int, check: Callable[[str], None] | None = None) -> str | None:
    """Why no TLS connection to the host can be trusted. `check` raises `AddressRefused` for an address that must not be
    connected to."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(address[0]) for *_, address in found]
            for address in addresses:
                if check is not None:
                    check(address)
            await _connect(addresses, host, port)
    except AddressRefused as refused:
        return str(refused)
    except ssl.SSLCertVerificationError as failed:
        return f"its certificate is not valid: {failed.verify_message}"
    except TimeoutError:
        return f"no connection within {_CONNECT_SECONDS:.0f} s"
    except OSError as failed:
        return cause_of(failed)
    return None


async def _connect(addresses: list[str], host: str, port: int) -> None:
    """Connect to the first address that answers, and hang up. Raises the last error."""
    for address in addresses:
        try:
            _, writer = await asyncio.open_connection(
                address, port, ssl=ssl.create_default_context(), server_hostname=host
            )
        except ssl.SSLError:
            raise
        except OSError:
            if address == addresses[-1]:
                raise
        else:
            writer.close()
            return


def _days_left(host: str, port: int) -> float:
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        certificate = secure.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return not ip_address(host).is_global
    return "." not in host
