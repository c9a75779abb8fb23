"""A running Ringback for tests of the console in a browser: its pages, and what happens to its calls.

The simulator is so slow that it reports nothing by itself. A test reports the next event when it has seen the page
after the last one, so no state can be missed, however slow the machine is.
"""

import asyncio
import io
import json
import os
import re
import signal
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import psutil
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, StorageState
from sqlalchemy import Select, select

from app import accounts, calls
from app.db import Database
from app.hints import Hints, arq_pool
from app.models import Call, TranscriptRow, User
from app.settings import Settings
from app.telephony.base import CallEvent, CallStatus, Leg
from app.telephony.simulator import CONVERSATIONS
from tests.acceptance.browser import open_browser
from tests.acceptance.conftest import PATIENCE_SECONDS, Instance, start
from tests.conftest import PASSWORD
from tests.integration.receiver import Receiver, listening

OPERATOR = "demo@ringback.local"
USER = "ravi@example.com"
SAMPLE_USER = "asha@example.com"
"""Has the calls of `console_data`."""
CUSTOMER, AGENT = "919820012345", "918888888888"

SETTINGS = {
    "RINGBACK_SIMULATOR_SPEED": "0.0001",  # a call takes hours
    "RINGBACK_ANSWER_TIMEOUT_SECONDS": "3600",
    "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
}
_LONG_AGO = timedelta(days=30)


class Speech:
    """A speech endpoint that knows the simulator's conversations, and answers when the test lets it."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._known = [json.loads(path.read_text()) for path in sorted(CONVERSATIONS.glob("*.json"))]
        self._asked: dict[float, int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """The words of a channel. The channels of a recording come one after another."""
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        with wave.open(io.BytesIO(upload.file.read())) as audio:
            seconds = audio.getnframes() / audio.getframerate()
        await self.may_answer.wait()
        known = min(self._known, key=lambda known: abs(known["duration"] - seconds))
        place = self._asked.get(known["duration"], 0)
        self._asked[known["duration"]] = place + 1
        role = known["channels"][place % 2]
        words = [word for turn in known["turns"] if turn["role"] == role for word in _words(turn)]
        return web.json_response({"text": "", "language": "english", "words": words})


def _words(turn: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said = turn["content"].split()
    each = (turn["end"] - turn["start"]) / len(said)
    for place, word in enumerate(said):
        yield {"word": word, "start": turn["start"] + place * each, "end": turn["start"] + (place + 1) * each}


@asynccontextmanager
async def _speech_endpoint(speech: Speech) -> AsyncIterator[dict[str, str]]:
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/{path:.*}", speech.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield {"RINGBACK_RECOGNIZER": "openai", "RINGBACK_SPEECH_URL": f"http://{host}:{port}/v1"}
    finally:
        await runner.cleanup()


@dataclass
class Tab:
    """A browser's session of one user, and what must not happen in it."""

    context: BrowserContext
    base_url: str
    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Problems that the test provokes, as regular expressions."""

    def watch(self) -> None:
        self.context.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.context.on("weberror", lambda error: self.problems.append(str(error.error)))
        self.context.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.context.on("request", lambda request: self._requested(request.url))

    def _requested(self, url: str) -> None:
        if not url.startswith((f"{self.base_url}/", "data:")):
            self.problems.append(f"request to another origin: {url}")

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.problems if not any(re.search(known, text) for known in self.expected)]


@dataclass
class Site:
    """The installation, a browser, and what stands around them."""

    instance: Instance
    settings: Settings
    db: Database
    browser: Browser
    speech: Speech
    receiver: Receiver
    passwords: dict[str, str]
    logins: dict[str, StorageState] = field(default_factory=dict)

    @asynccontextmanager
    async def tab(self, email: str | None = None, **options: Any) -> AsyncIterator[tuple[Page, Tab]]:
        """A page, signed in as this user. Fails if the console, the policy or the network has something to say."""
        if email is not None and email not in self.logins:
            await self._sign_in(email)
        options = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "Asia/Kolkata", **options}
        if email is not None:
            options["storage_state"] = self.logins[email]
        context = await self.browser.new_context(base_url=self.instance.base_url, **options)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        tab = Tab(context, self.instance.base_url)
        tab.watch()
        try:
            yield await context.new_page(), tab
            assert not tab.unexpected, "\n".join(tab.unexpected)
        finally:
            await context.close()

    async def _sign_in(self, email: str) -> None:
        async with self.tab() as (page, tab):
            await page.goto("/login")
            await self.fill_login(page, email)
            await page.wait_for_url("**/calls")
            self.logins[email] = await tab.context.storage_state()

    async def fill_login(self, page: Page, email: str) -> None:
        await page.get_by_label("E-mail").fill(email)
        await page.get_by_label("Password").fill(self.passwords[email])
        await page.get_by_role("button", name="Sign in").click()

    async def order(self, email: str, *, callback: bool = False) -> str:
        """Place a call by the API; returns its id."""
        order = {"customer_number": CUSTOMER, "agent_number": AGENT}
        if callback:
            order["callback_url"] = self.receiver.url
        async with httpx.AsyncClient(base_url=f"{self.instance.base_url}/api/developer", timeout=60) as client:
            login = {"email": email, "password": self.passwords[email]}
            token = (await client.post("/login", json=login)).json()["data"]["access_token"]
            answer = await client.post("/calls/click2call", json=order, headers={"Authorization": f"Bearer {token}"})
        return str(answer.json()["data"]["call_id"])

    async def happen(self, call_id: str, key: str, status: CallStatus, leg: Leg | None = None, **more: Any) -> None:
        """Report an event of the call, as a worker does."""
        event = CallEvent(key, status, datetime.now(UTC), leg=leg, **more)
        async with self.db.transaction() as session:
            await calls.apply_events(session, call_id, [event], max_call_seconds=3600)

    async def end_answered(self, call_id: str) -> None:
        """Report that they hung up, so that there is a recording."""
        ledger = self.instance.data_dir / "simulator" / call_id[-2:] / f"{call_id}.jsonl"
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        for line in lines:
            line["at"] = (datetime.fromisoformat(line["at"]) - _LONG_AGO).isoformat()
        ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
        more = {"hangup_cause": "normal_clearing", "ended_by": Leg.CUSTOMER, "has_recording": True, "talk_seconds": 14}
        await self.happen(call_id, "ended", CallStatus.COMPLETED, Leg.CUSTOMER, **more)

    async def wait_for_status(self, call_id: str, *statuses: CallStatus) -> None:
        """Wait until a worker has brought the call there."""
        await self._wait_for(select(Call.status).where(Call.id == call_id), *statuses)

    async def wait_for_transcript(self, call_id: str) -> None:
        await self._wait_for(select(TranscriptRow.status).where(TranscriptRow.call_id == call_id), "ready")

    async def _wait_for(self, query: Select[str], *values: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with self.db.transaction() as session:
                    if await session.scalar(query) in values:
                        return
                await asyncio.sleep(0.1)

    @contextmanager
    def dialing_stopped(self) -> Iterator[None]:
        """The worker that dials stands still while the block runs."""
        (worker,) = (
            child
            for child in psutil.Process(self.instance.process.pid).children(recursive=True)
            if child.cmdline()[-2:] == ["worker", "calls"]
        )
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker.pid, signal.SIGCONT)


@asynccontextmanager
async def open_site(data_dir: Path) -> AsyncIterator[Site]:
    """Start everything."""
    speech, receiver = Speech(), Receiver()
    async with _speech_endpoint(speech) as settings, listening(receiver), open_browser() as browser:
        instance = await asyncio.to_thread(start, data_dir, settings=SETTINGS | settings)
        password = re.search(r"its password +(\S+)", instance.output)
        assert password, instance.output
        with patch.dict(os.environ, {"RINGBACK_DATA_DIR": str(data_dir), **SETTINGS, **settings}):
            known = Settings()
        hints = Hints(arq_pool(known.redis_url))
        db = Database(known.database_url, pool_size=2, after_commit=hints.send_noted)
        try:
            async with db.transaction() as session:
                for email in (USER, SAMPLE_USER):
                    await accounts.create_user(session, email, PASSWORD)
            passwords = {OPERATOR: password[1], USER: PASSWORD, SAMPLE_USER: PASSWORD}
            yield Site(instance, known, db, browser, speech, receiver, passwords)
        finally:
            await db.dispose()
            await hints.aclose()
            await asyncio.to_thread(instance.stop)


async def get_user(site: Site, email: str) -> User:
    async with site.db.transaction() as session:
        user = await accounts.find_user(session, email)
    assert user is not None
    return user
