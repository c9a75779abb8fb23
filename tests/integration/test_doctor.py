"""`ringback doctor` names each fault of an installation with its fix, and its bundle tells nobody's secrets."""

import asyncio
import io
import json
import secrets
import socket
import ssl
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from alembic import command
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select, text

from app import accounts, doctor, doctor_machine, health
from app.cli.migrate import alembic_config
from app.doctor_machine import Level
from app.engine_models import ListenerRow
from app.health import INSTALLATION_HEADER
from app.security import installation_id
from app.settings import Settings
from tests.conftest import PASSWORD
from tests.integration.call_runner import until
from tests.integration.command import CommandResult
from tests.integration.whole_installation import WholeInstallation, new_installation


@pytest.fixture
async def healthy(settings: Settings, tmp_path: Path) -> WholeInstallation:
    made = await new_installation(settings, tmp_path)
    made.settings.data_dir.mkdir()
    await asyncio.to_thread(command.upgrade, alembic_config(made.settings.database_url), "head")
    return made


async def examine(installation: WholeInstallation, **env: str) -> tuple[dict[tuple[str, str], list[str]], int]:
    """What is seen and how to fix it, by check and level; and the exit code."""
    done: CommandResult = await asyncio.to_thread(installation.ringback, "doctor", "--json", **env)
    found: dict[tuple[str, str], list[str]] = {}
    for line in json.loads(done.out):
        found.setdefault((line["check"], line["level"]), []).append(f"{line['seen']} → {line['fix']}")
    return found, done.code


async def test_nothing_is_wrong(healthy: WholeInstallation) -> None:
    async with healthy.working():

        async def all_is_there() -> bool:
            context = healthy.opened()
            async with context.db.statement() as connection:  # a provider that nobody listens to yet is not missing
                connected = await connection.scalar(select(ListenerRow.connected_since))
            missing = await health.missing_parts(context.db, context.hints._redis)
            await context.db.dispose()
            await context.hints.aclose()
            await context.outbound.aclose()
            return connected is not None and missing == []

        await until(all_is_there)
        found, code = await examine(healthy)
    assert [seen for (_, level), seen in found.items() if level == "error"] == []
    assert code == 0
    levels = {level for _, level in found}
    assert levels == {"ok", "warning"}
    assert [check for check, level in found if level == "warning"] == ["address"]
    checks = {"settings", "disk", "database", "tables", "clock", "valkey", "workers", "telephony", "speech"}
    assert {check for check, level in found if level == "ok"} >= {*checks, "recordings", "callbacks"}
    printed = (await asyncio.to_thread(healthy.ringback, "doctor")).out
    assert "error   workers     no live calls worker" in printed
    assert "run `ringback settle` before" in printed


@pytest.mark.parametrize(
    ("database", "seen", "fix"),
    [
        ("nobody@/postgres", "refuses the user or the password", "Correct RINGBACK_DATABASE_URL"),
        ("ringback@/nowhere", "There is none of this name", "Create it"),
        ("ringback:hidden@127.0.0.1:1/x", "cannot be reached", "Start PostgreSQL"),
    ],
)
async def test_a_database_that_cannot_be_used(healthy: WholeInstallation, database: str, seen: str, fix: str) -> None:
    query = healthy.settings.database_url.partition("?")[2] if "@/" in database else ""
    url = f"postgresql+asyncpg://{database}" + (f"?{query}" if query else "")
    found, code = await examine(healthy, RINGBACK_DATABASE_URL=url)
    assert code == 1
    (line,) = found["database", "error"]
    assert seen in line
    assert fix in line
    assert "hidden" not in str(found)
    assert found["recordings", "ok"], "the rest is checked"
    assert "Not checked" in found["workers", "warning"][0]


async def test_tables_of_another_release(settings: Settings, tmp_path: Path) -> None:
    made = await new_installation(settings, tmp_path)
    made.settings.data_dir.mkdir()
    assert (await examine(made))[0]["tables", "error"] == ["There are none → ringback migrate"]
    await asyncio.to_thread(command.upgrade, alembic_config(made.settings.database_url), "0012")
    found, code = await examine(made)
    assert code == 1
    assert "Of an earlier release (0012, not " in found["tables", "error"][0]
    name = made.settings.database_url.partition("?")[0].rpartition("/")[2]
    async with made.database() as db, db.statement() as connection:
        await connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    assert "It takes no changes" in (await examine(made))[0]["database", "error"][0]


@pytest.fixture
def lru(settings: Settings) -> Iterator[None]:
    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.usefixtures("lru")
async def test_valkey_that_forgets(healthy: WholeInstallation) -> None:
    found, _ = await examine(healthy)
    assert "maxmemory-policy is allkeys-lru" in found["valkey", "warning"][0]


async def test_valkey_that_does_not_answer(healthy: WholeInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://:hidden@127.0.0.1:{silent.getsockname()[1]}/0"
        found, _ = await examine(healthy, RINGBACK_REDIS_URL=url)
    assert "No answer within" in found["valkey", "error"][0]
    assert "hidden" not in str(found)


@pytest.mark.parametrize(("embedded", "fix"), [("false", "Start Valkey"), ("true", "`ringback up`")])
async def test_valkey_that_is_gone(healthy: WholeInstallation, embedded: str, fix: str) -> None:
    found, code = await examine(healthy, RINGBACK_REDIS_URL="redis://127.0.0.1:1/0", RINGBACK_EMBEDDED=embedded)
    assert code == 1
    assert fix in found["valkey", "error"][0]


async def test_settings(healthy: WholeInstallation) -> None:
    wrong = {
        "RINGBACK_CALBACK_TIMEOUT_SECONDS": "3",
        "RINGBACK_CORS_ORIGINS": "*",
        "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "RINGBACK_DEFAULT_LANGUAGE": "hi",
    }
    found, _ = await examine(healthy, **wrong)
    warnings = str(found["settings", "warning"])
    assert "Did you mean RINGBACK_CALLBACK_TIMEOUT_SECONDS?" in warnings
    assert "allows every web page" in warnings
    assert "is for development" in warnings
    assert "does not make usable Hindi" in found["speech", "warning"][0]
    found, code = await examine(healthy, RINGBACK_SECRET_KEY="short", RINGBACK_PORT="no")
    assert code == 1
    assert len(found["settings", "error"]) == 1, "of a wrong variable, and then of those that depend on it"
    found, _ = await examine(healthy, RINGBACK_WHISPER_MODEL="large-v3")
    assert "ringback models fetch large-v3" in found["speech", "error"][0]
    found, _ = await examine(
        healthy, RINGBACK_TELEPHONY_PROVIDER="asterisk", RINGBACK_ASTERISK_URL="http://127.0.0.1:1"
    )
    assert found["telephony", "error"]


async def test_disk(healthy: WholeInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    found, code = await examine(healthy, RINGBACK_DATA_DIR=str(tmp_path / "file"))
    assert code == 1
    assert "cannot be written" in found["disk", "error"][0]
    assert found["recordings", "error"]
    for free, level in ((10**8, "error"), (10**9, "warning")):
        monkeypatch.setattr("app.doctor_machine.shutil.disk_usage", lambda folder, free=free: _Usage(free))
        assert "Make room" in (await examine(healthy))[0]["disk", level][0]


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


async def test_receivers_of_callbacks(healthy: WholeInstallation) -> None:
    """A client chose the host, so it is not connected to unless a callback could be."""
    async with healthy.database() as db, db.transaction() as session:
        user = await accounts.create_user(session, "a@example.com", PASSWORD)
    connected = 0

    def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        (call_id,) = await healthy.place(user, "15005550001", url)
        adding = (
            "INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body, status, attempts) "
            "SELECT 'msg_2', user_id, id, 'call.answered', 0, :url, '{}', 'failed', 9 FROM calls WHERE id = :call_id"
        )
        async with healthy.database() as db, db.transaction() as session:
            await session.execute(text(adding), {"url": url, "call_id": call_id})
        found, _ = await examine(healthy)
        assert connected == 0
        assert "is not a public address" in found["callbacks", "warning"][0]
        assert "1 of 1 callbacks of the last day have not arrived" in found["callbacks", "warning"][1]
        found, _ = await examine(healthy, RINGBACK_OUTBOUND_NETWORKS="127.0.0.0/8")
        assert connected == 1
        assert "cannot be reached" in found["callbacks", "warning"][0]


def test_clocks() -> None:
    now = datetime.now(UTC)
    seconds = now.timestamp()
    late = now + timedelta(seconds=3)
    assert doctor_machine.compare_clocks("another", seconds + 1.5, now, late, 2).level is Level.OK
    for theirs in (seconds - 9, seconds + 12):
        line = doctor_machine.compare_clocks("another", theirs, now, late, 2)
        assert "differ by 9.0 s" in line.seen


# The public address


def certificate(folder: Path, name: str, *, days: float) -> ssl.SSLContext:
    """A server's context with a certificate of its own authority, which `folder`/ca.pem is."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@asynccontextmanager
async def serving(context: ssl.SSLContext | None, headers: dict[str, str]) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers=headers)

    app = web.Application()
    app.router.add_get("/healthz", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server: Any = site._server
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("name", "days", "level", "seen"),
    [
        ("localhost", -1, "error", "certificate has expired"),
        ("elsewhere.example", 90, "error", "Hostname mismatch"),
        ("localhost", 5, "warning", "ends in 5 days"),
        ("localhost", 90, "ok", "valid for 90 days"),
    ],
)
async def test_certificates(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, days: int, level: str, seen: str
) -> None:
    context = certificate(tmp_path, name, days=days + 0.01)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    ours = {INSTALLATION_HEADER: installation_id(settings.secret_key.get_secret_value())}
    async with serving(context, ours) as port:
        lines = await doctor_machine.examine_address(f"https://localhost:{port}/", settings)
    assert lines[0].level == level
    assert seen in lines[0].seen
    if level != "error":
        assert "reaches this installation" in lines[1].seen


async def test_addresses(settings: Settings) -> None:
    async with serving(None, {}) as port:
        (line,) = await doctor_machine.examine_address(f"http://127.0.0.1:{port}/", settings)
        assert (line.level, "not as Ringback does" in line.seen) == ("error", True)
    old = (datetime.now(UTC) - timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with serving(None, {INSTALLATION_HEADER: "another", "Date": old}) as port:
        (line,) = await doctor_machine.examine_address(f"http://127.0.0.1:{port}", settings)
        assert (line.level, "is another installation" in line.seen) == ("error", True)
    ours = {INSTALLATION_HEADER: installation_id(settings.secret_key.get_secret_value()), "Date": old}
    async with serving(None, ours) as port:
        lines = await doctor_machine.examine_address(f"http://127.0.0.1:{port}", settings)
        assert [line.level for line in lines] == ["ok", "warning"]
        assert "differ by 36" in lines[1].seen
    lines = await doctor_machine.examine_address("http://ringback.invalid", settings)
    assert [line.level for line in lines] == ["warning", "error"]


# The bundle


SECRETS = {
    "customer": "919812345670",
    "agent": "918877665544",
    "email": "priya.sharma@customer.example",
    "name": "Zebediah Quux",
    "token": "tok_Zm9vYmFyYmF6cXV4",
    "password": "hunter2-hunter2",
    "address": "203.0.113.77",
    "said": "The cat sleeps on my mortgage",
    "receiver": "hooks.customer.example",
    "caller": "918069990000",
    "account": "ACquuxandsons",
}


async def fill(installation: WholeInstallation) -> None:
    """Every place that holds other people's words."""
    s = SECRETS
    async with installation.database() as db, db.transaction() as session:
        user = await accounts.create_user(session, s["email"], PASSWORD)
    url = f"https://{s['receiver']}/{s['token']}?to={s['customer']}"
    (call_id, *_) = await installation.place(user, s["customer"], url, 2)
    async with installation.database() as db, db.transaction() as session:
        for statement, values in (
            ("UPDATE tasks SET last_error = :error", {"error": f"{s['name']} at {s['customer']}: {s['token']}"}),
            (
                "UPDATE transcripts SET summary = :said, status = 'ready', history = CAST(:history AS jsonb)",
                {"said": s["said"], "history": json.dumps([{"role": "agent", "content": s["said"]}])},
            ),
            (
                "INSERT INTO deliveries (message_id, user_id, call_id, event, round, url, body, status, attempts, "
                "last_answer) SELECT 'msg_1', user_id, id, 'call.answered', 0, :url, '{}', 'failed', 1, :error "
                "FROM calls WHERE id = :call_id",
                {"url": url, "error": f"500 {s['name']}", "call_id": call_id},
            ),
        ):
            await session.execute(text(statement), values)
    logs = installation.settings.data_dir / "logs"
    logs.mkdir()
    lines: list[str] = [
        json.dumps(
            {"event": "call_moved", "level": "info", "call_id": call_id, "status": "ringing", "cause": s["name"]}
        ),
        json.dumps({"event": f"Request to {url} by {s['name']} failed", "level": "error", "error": repr(s)}),
        json.dumps(
            {"event": "sweep_failed", "error": f"ValueError('{s['name']} {s['customer']}')", "worker": "calls-1"}
        ),
        json.dumps(
            {"event": "failed", "exception": f'  File "/a/b/app/x.py", line 3, in run\nKeyError: {s["name"]!r}'}
        ),
        json.dumps({"event": s["customer"], "status": s["token"], "path": f"/a?{s['token']}", s["name"]: 1}),
        *(f"Traceback: {value}" for value in s.values()),
        *(f"ValueError: {value}" for value in s.values()),
        *(f'  File "/home/{value}/y.py", line 7, in go' for value in s.values()),
        *s.values(),
    ]
    (logs / "calls-worker.log").write_text("\n".join(lines))
    server = [
        f'2026 UTC [7] ERROR:  duplicate key "{s["name"]}" from {s["address"]}',
        f"2026 UTC [7] DETAIL:  Key (email)=({s['email']}) {s['name']}",
        f"2026 UTC [7] STATEMENT:  SELECT '{s['said']}'",
        f"2026 UTC [7] LOG:  connection of {s['address']} {s['customer']}",
    ]
    (installation.settings.data_dir / "postgres.log").write_text("\n".join(server))


async def test_a_bundle_has_no_secrets_numbers_or_names(healthy: WholeInstallation, tmp_path: Path) -> None:
    s = SECRETS
    trunk = ("-o", f"account_sid={s['account']}", "-o", f"auth_token={s['password']}")
    added = await asyncio.to_thread(healthy.ringback, "providers", "add", "trunk", "--kind", "twilio", *trunk)
    added.check()
    await fill(healthy)
    file = tmp_path / "bundle.zip"
    env = {
        "RINGBACK_CALLER_ID": s["caller"],
        "RINGBACK_CALL_LOG_USERNAME": s["name"],
        "RINGBACK_CALL_LOG_PASSWORD": s["password"],
        "RINGBACK_S3_REGION": s["name"],
        "RINGBACK_PUBLIC_URL": f"http://{s['token']}.invalid/",
        "RINGBACK_OPENAI_API_KEY": s["token"],
        f"RINGBACK_{secrets.token_hex(2).upper()}": s["password"],
    }
    await asyncio.to_thread(healthy.ringback, "doctor", "--bundle", str(file), **env)
    assert file.stat().st_mode & 0o777 == 0o600
    bundle = zipfile.ZipFile(io.BytesIO(file.read_bytes()))
    content = {name: bundle.read(name).decode() for name in bundle.namelist()}
    key = healthy.settings.secret_key.get_secret_value()
    valkey = healthy.settings.redis_url.partition("@")[0].rpartition(":")[2]
    for name, shown in content.items():
        for value in (*s.values(), *s["name"].split(), key, valkey, "9812345670", "sharma"):
            assert value.lower() not in shown.lower(), (name, value)

    assert set(content) == {
        *("doctor.json", "versions.json", "settings.json", "database.json"),
        *("logs/calls-worker.log", "logs/postgres.log"),
    }
    settings = json.loads(content["settings.json"])
    assert settings["RINGBACK_SECRET_KEY"] == settings["RINGBACK_CALLER_ID"] == "(set)"
    assert settings["RINGBACK_CALL_CONCURRENCY"] == 100
    database = json.loads(content["database.json"])
    assert database["calls by status"] == {"queued": 2}
    assert database["tasks that failed by kind"] == {"dial": 2}
    log = content["logs/calls-worker.log"]
    assert '"event": "call_moved"' in log
    assert "ValueError: …" in log
    assert "app/x.py, line 3, in run" in log
