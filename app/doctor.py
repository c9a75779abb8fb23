"""What is wrong with an installation, in the order in which things depend on each other, each with its fix.

It asks what the readiness probe, `ringback providers check` and the console ask, and looks at this machine
(`app.doctor_machine`). Nothing is changed, nobody is called, and no check takes longer than its limit.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from sqlalchemy import exists, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import doctor_machine, health, providers, settling
from app.db import Database, is_unreachable
from app.doctor_machine import CheckLine, error, ok, warning
from app.options import SettingsError
from app.provider_directory import ProviderDirectory
from app.settings import Settings, get_settings
from app.storage import StorageError
from app.telephony.base import Finding, ProviderError
from app.transcription.base import TranscriptionError

_SECONDS = 10.0
_PROVIDERS_SECONDS = 60.0
"""A check that takes longer is an error. Providers are asked several questions each."""

_CONNECTIONS_OF_API, _CONNECTIONS_OF_WORKER = 32, 16
_OLDEST_POSTGRESQL = 14
_CLOCK_SECONDS = 2.0
_RECEIVERS = 5

_FACTS = """
SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('server_version') AS version,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections,
       current_setting('server_encoding') AS encoding, extract(epoch FROM clock_timestamp()) AS clock,
       to_regclass('alembic_version') IS NOT NULL AS is_migrated, to_regclass('calls') IS NOT NULL AS has_calls
"""

_RECENT_CALLBACKS = """
SELECT url, status, attempts > 0 AS tried FROM deliveries WHERE created_at > now() - interval '1 day'
ORDER BY id DESC LIMIT 1000
"""


@dataclass
class _Examined:
    """What the checks share."""

    settings: Settings
    head: str
    db: Database
    redis: Redis
    has_tables: bool = False


async def examine(head: str) -> AsyncIterator[CheckLine]:
    """Every check, in order. `head`: the revision of the tables that this release needs."""
    for line in doctor_machine.examine_settings():
        yield line
    try:
        settings = get_settings()
    except SettingsError as wrong:
        for line in _settings_errors(wrong):
            yield line
        return
    for line in doctor_machine.examine_machine(settings):
        yield line
    db = Database(settings.database_url, pool_size=2)
    redis = Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
    examined = _Examined(settings, head, db, redis)
    checks: list[tuple[str, Callable[[_Examined], Awaitable[list[CheckLine]]], float]] = [
        ("database", _examine_database, _SECONDS),
        ("valkey", _examine_valkey, _SECONDS),
        ("workers", _examine_workers, _SECONDS),
        ("telephony", _examine_providers, _PROVIDERS_SECONDS),
        ("speech", _examine_speech, _SECONDS),
        ("recordings", _examine_storage, _SECONDS),
        ("callbacks", _examine_callbacks, _SECONDS * 2),
        ("address", _examine_address, _SECONDS * 2),
    ]
    try:
        for name, check, seconds in checks:
            try:
                async with asyncio.timeout(seconds):
                    lines = await check(examined)
            except TimeoutError:
                lines = [error(name, f"No answer within {seconds:.0f} s", "Check the network and the server's load")]
            except Exception as failed:  # a check that fails must not hide the others
                lines = [error(name, f"Could not be checked: {doctor_machine.cause_of(failed)}", "See the lines above")]
            for line in lines:
                yield line
    finally:
        await redis.aclose()
        await db.dispose()


def _settings_errors(wrong: SettingsError) -> list[CheckLine]:
    lines = [line.strip() for line in str(wrong).splitlines()]
    faults = lines if len(lines) == 1 else lines[1:]
    return [error("settings", fault, "docs/settings.md lists every setting") for fault in faults]


# Servers


async def _examine_database(examined: _Examined) -> list[CheckLine]:
    try:
        before = datetime.now(UTC)
        async with examined.db.statement() as connection:
            facts = (await connection.execute(text(_FACTS))).one()
            after = datetime.now(UTC)
            revision = None
            if facts.is_migrated:
                revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            workers = await _count_workers(connection) if facts.has_calls else 0
    except Exception as failed:
        return [_explain_database(failed, examined.settings)]
    lines = [ok("database", f"PostgreSQL {facts.version}")]
    if facts.major < _OLDEST_POSTGRESQL:
        lines = [warning("database", f"PostgreSQL {facts.version} is old", f"Use {_OLDEST_POSTGRESQL} or newer")]
    if facts.is_read_only:
        lines.append(error("database", "It takes no changes: a replica, or read-only", "Use the primary's address"))
    if facts.encoding != "UTF8":
        lines.append(error("database", f"Its encoding is {facts.encoding}", "Create it with ENCODING 'UTF8'"))
    examined.has_tables = facts.has_calls and revision == examined.head
    lines.append(_compare_revisions(revision, examined.head, is_read_only=facts.is_read_only))
    apis = examined.settings.api_processes
    needed = apis * _CONNECTIONS_OF_API + max(workers, 3) * _CONNECTIONS_OF_WORKER
    if facts.connections < needed:
        lines.append(
            warning(
                "database",
                f"It allows {facts.connections} connections. API processes: {apis}, workers: {max(workers, 3)}. "
                f"They open up to {needed}",
                "Raise max_connections, or put PgBouncer in between",
            )
        )
    lines.append(doctor_machine.compare_clocks("the database's", float(facts.clock), before, after, _CLOCK_SECONDS))
    return lines


async def _count_workers(connection: AsyncConnection) -> int:
    alive = "SELECT count(*) FROM workers WHERE seen_at > now() - make_interval(secs => :silent)"
    return int(await connection.scalar(text(alive), {"silent": health.WORKER_SILENT_SECONDS}) or 0)


def _compare_revisions(revision: str | None, head: str, *, is_read_only: bool) -> CheckLine:
    if revision == head:
        return ok("tables", f"Of this release ({head})")
    if revision is None:
        return error("tables", "There are none", "ringback migrate")
    if revision < head and not is_read_only:
        return error("tables", f"Of an earlier release ({revision}, not {head})", "ringback migrate")
    fix = "Start the release that made them, or a newer one"
    return error("tables", f"Of another release ({revision}, not {head})", fix)


def _explain_database(failed: Exception, settings: Settings) -> CheckLine:
    state = str(getattr(getattr(failed, "orig", failed), "sqlstate", None))
    cause = doctor_machine.cause_of(failed)
    if state.startswith("28"):
        return error("database", f"It refuses the user or the password: {cause}", "Correct RINGBACK_DATABASE_URL")
    if state == "3D000":
        return error("database", f"There is none of this name: {cause}", "Create it, or correct RINGBACK_DATABASE_URL")
    if state == "53300":
        return error("database", f"All connections are taken: {cause}", "Raise max_connections, or run fewer processes")
    if is_unreachable(failed):
        fix = _how_to_start("PostgreSQL", "RINGBACK_DATABASE_URL", settings)
        return error("database", f"It cannot be reached: {cause}", fix)
    return error("database", f"It cannot be used: {cause}", "Correct RINGBACK_DATABASE_URL")


def _how_to_start(server: str, variable: str, settings: Settings) -> str:
    if settings.embedded:
        return "Start Ringback with `ringback up`. If it runs, stop it first: it starts its servers only then"
    return f"Start {server}, or correct {variable}"


async def _examine_valkey(examined: _Examined) -> list[CheckLine]:
    try:
        info: dict[str, Any] = await examined.redis.info()
    except Exception as failed:
        cause = doctor_machine.cause_of(failed)
        how = _how_to_start("Valkey", "RINGBACK_REDIS_URL", examined.settings)
        fix = f"Calls still work, seconds later. {how}"
        return [error("valkey", f"It cannot be used: {cause}", fix)]
    name = "Valkey" if "valkey_version" in info else "Redis"
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    lines = [ok("valkey", f"{name} {info.get('valkey_version') or info.get('redis_version')}")]
    if str(policy).startswith("allkeys"):
        lines.append(
            warning(
                "valkey",
                f"maxmemory-policy is {policy}: under pressure it forgets hints, and who guessed passwords",
                "CONFIG SET maxmemory-policy noeviction, and use a Valkey that nobody else fills",
            )
        )
    if limit and int(info.get("used_memory", 0)) > 0.9 * limit:
        lines.append(warning("valkey", "It is nearly full", "Raise maxmemory, or delete what is not Ringback's"))
    return lines


async def _examine_workers(examined: _Examined) -> list[CheckLine]:
    if not examined.has_tables:
        return [_not_checked("workers")]
    missing = await health.missing_parts(examined.db, examined.redis, patience=_SECONDS)
    lines = []
    async with examined.db.statement() as connection:
        if await connection.scalar(select(exists().where(settling.is_held()))):
            fix = "Empty the database and restore again, or end all that is pending: ringback settle"
            lines.append(error("workers", "A restore did not finish, so no worker takes its tasks", fix))
    for part in missing:
        if "Valkey" in part.problem:
            continue
        seen, _, fix = part.problem.partition(": start ")
        fix = f"start {fix}" if fix else "The line says what to do"
        if "no live" in seen:
            fix += ". If other tools restored this database, run `ringback settle` before"
        lines.append((error if part.is_vital else warning)("workers", seen, fix))
    return lines or [ok("workers", "One of each kind works, and no task is late")]


# What calls need


async def _examine_providers(examined: _Examined) -> list[CheckLine]:
    if not examined.has_tables:
        return [_not_checked("telephony")]
    directory = ProviderDirectory(examined.db, examined.settings)
    lines = []
    try:
        for config in (await directory.configs()).values():
            worse = error if config.is_default else warning
            try:
                async with directory.use(config.name) as adapter:
                    findings = [finding async for finding in adapter.check()]
                    simulated = adapter.capabilities.simulated
            except ProviderError as failed:
                fix = f"ringback providers check {config.name}"
                lines.append(worse("telephony", f"{config.name}: {failed}", fix))
                continue
            lines += _of_findings(config.name, findings, worse, simulated=simulated and config.is_default)
    finally:
        await directory.aclose()
    return lines


def _of_findings(
    name: str, findings: list[Finding], worse: Callable[[str, str, str], CheckLine], *, simulated: bool
) -> list[CheckLine]:
    faults = [finding for finding in findings if not finding.ok]
    if faults:
        return [worse("telephony", f"{name}: {fault.what}: {fault.seen}", fault.fix) for fault in faults]
    if simulated:
        return [ok("telephony", f"{name}: all calls are simulated. docs/providers.md leads to real ones")]
    return [ok("telephony", f"{name}: ready for calls")]


async def _examine_speech(examined: _Examined) -> list[CheckLine]:
    try:
        name, doubt = providers.check_speech(examined.settings)
    except (SettingsError, TranscriptionError) as failed:
        return [error("speech", str(failed), "ringback models list")]
    if doubt is not None:
        return [warning("speech", f"{name}: {doubt}", "docs/speech.md says which models and services do")]
    return [ok("speech", name)]


async def _examine_storage(examined: _Examined) -> list[CheckLine]:
    key, content = f"recordings/{secrets.token_hex(8)}.probe", secrets.token_bytes(64)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    try:
        storage = providers.storage(examined.settings)
        await storage.put(key, chunks(), max_bytes=len(content))
        async with storage.local_copy(key) as path:
            is_same = path.read_bytes() == content
        await storage.delete([key])
    except (SettingsError, StorageError) as failed:
        return [error("recordings", str(failed), "Make room, or correct the folder's owner or the bucket's settings")]
    if not is_same:
        return [error("recordings", "What was read is not what was written", "Check the disk or the bucket")]
    return [ok("recordings", "Written, read and deleted a file")]


async def _examine_callbacks(examined: _Examined) -> list[CheckLine]:
    if not examined.has_tables:
        return [_not_checked("callbacks")]
    async with examined.db.statement() as connection:
        rows = (await connection.execute(text(_RECENT_CALLBACKS))).all()
    outbound = providers.outbound(examined.settings)
    tried = [row for row in rows if row.tried]
    failing = [row for row in tried if row.status != "delivered"]
    lines = []
    hosts = {(url.hostname, url.port or 443) for row in rows if (url := urlsplit(row.url)).scheme == "https"}
    for host, port in sorted(hosts, key=str)[:_RECEIVERS]:
        fault = await doctor_machine.find_tls_fault(str(host), port, outbound.check)  # a client chose the host
        if fault is not None:
            fix = "Allow outgoing HTTPS, or ask the receiver's owner"
            lines.append(warning("callbacks", f"{host} cannot be reached: {fault}", fix))
    if len(failing) > len(tried) / 10:
        seen = f"{len(failing)} of {len(tried)} callbacks of the last day have not arrived"
        lines.append(warning("callbacks", seen, "ringback deliveries list"))
    return lines or [ok("callbacks", f"{len(tried)} sent in the last day" if tried else "None sent in the last day")]


async def _examine_address(examined: _Examined) -> list[CheckLine]:
    url = examined.settings.public_url
    if url is None:
        fix = "Set RINGBACK_PUBLIC_URL to where clients reach this server"
        seen = f"Links to recordings begin with {examined.settings.base_url}"
        return [ok("address", seen) if examined.settings.embedded else warning("address", seen, fix)]
    return await doctor_machine.examine_address(str(url), examined.settings)


def _not_checked(name: str) -> CheckLine:
    return warning(name, "Not checked, because the database or its tables are not in order", "Correct that first")
