"""Secrets never reach the log of a process that fails, in either format, however the failure is logged."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Servers

ROOT = Path(__file__).parents[2]

# A process of its own, because logging is configured for a whole process.
FAILING = """
import asyncio, gc, logging, sys
import structlog
import uvicorn
from app import logs
from app.db import Database
from sqlalchemy import text

logs.configure(sys.argv[1])
database_url = sys.argv[2]


class Login:
    def __init__(self, password):
        self.password = password

    def __repr__(self):
        return f"Login({self.password})"


def fail():
    password = "hidden-" + "in-a-variable"
    login, headers = Login(password), {"Authorization": "Bearer " + password}
    raise ValueError("it failed")


async def work():
    try:
        fail()
    except ValueError as error:
        structlog.get_logger().exception("ours")
        structlog.get_logger().warning("ours too", exc_info=error)
        logging.getLogger("a.library").exception("a library's")
    forgotten = asyncio.create_task(fail_later())
    await asyncio.sleep(0)
    del forgotten
    gc.collect()  # "Task exception was never retrieved"
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
    db = Database(database_url, pool_size=1)
    try:
        async with db.statement() as connection:
            await connection.execute(text("SELECT CAST(:number AS int) / 0"), {"number": 919876543210 % 10**9})
    except Exception:
        structlog.get_logger().exception("the database's")
    await db.dispose()
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = ["Host: a", "Connection: close", "Authorization: Bearer hidden-in-a-header"]
    writer.write("\\r\\n".join(["GET / HTTP/1.1", *headers, "", ""]).encode())
    await reader.read()
    writer.close()
    server.should_exit = True
    await serving


async def fail_later():
    fail()


async def application(scope, receive, send):
    if scope["type"] == "http":
        fail()


asyncio.run(work())
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_failure_shows_where_it_was_and_no_variable(log_format: str, servers: Servers) -> None:
    url = servers.database_url
    done = subprocess.run(
        [sys.executable, "-c", FAILING, log_format, url], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for line in (
        "ours",
        "ours too",
        "a library's",
        "never retrieved",
        "Exception in callback",
        "the database's",
        "ASGI",
    ):
        assert line in output
    assert output.count("ValueError: it failed") == 6
    assert len(re.findall(r"in fail\b", output)) == 6, "each with its traceback"
    assert "division by zero" in output
    for secret in ("hidden-in-a-variable", "hidden-in-a-header", "Login(", "876543210"):
        assert secret not in output, secret
