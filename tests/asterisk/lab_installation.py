"""The lab as tests see it, and a whole installation that dials through it."""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from pydantic import SecretStr
from sqlalchemy import func, select

from app import accounts, call_rules
from app.call_state import TERMINAL
from app.db import Database, is_unreachable
from app.engine_models import Task
from app.models import Call, CallEventRow, RecordingRow, TranscriptRow
from app.numbers import NumberFormat
from app.telephony.asterisk import Asterisk, AsteriskOptions
from app.telephony.base import AdapterContext
from bench.installation import Installation
from lab.asterisk import PASSWORD as ARI_PASSWORD
from lab.asterisk import USERNAME, AsteriskServer
from lab.phones import Phones

PATIENCE_SECONDS = 120  # far longer than anything takes, because no test is about speed
RING_SECONDS = 3.0
PASSWORD = "a good password"


async def eventually(what: Callable[[], Awaitable[Any]], seconds: float = PATIENCE_SECONDS) -> Any:
    """Call it until its result is true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := await what():
                return result
        except Exception as error:  # on a busy machine, connecting to PostgreSQL may take too long
            if not is_unreachable(error):
                raise
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        await asyncio.sleep(0.05)


class Lab:
    def __init__(self, server: AsteriskServer, phones: Phones) -> None:
        self.server = server
        self.phones = phones

    def options(self, **changed: object) -> AsteriskOptions:
        values: dict[str, object] = {
            "url": self.server.url,
            "username": USERNAME,
            "password": SecretStr(ARI_PASSWORD),
            "app": f"test-{secrets.token_hex(4)}",
            "dial": "PJSIP/{number}@trunk-from",
            "number_format": NumberFormat.E164,
            "ami_address": f"127.0.0.1:{self.server.ami_port}",
        }
        return AsteriskOptions(**{**values, **changed})  # type: ignore[arg-type]

    def provider(self, *, installation: str = "a-test", **changed: object) -> Asterisk:
        context = AdapterContext(installation, "a-test", Path(), home_country="IN", longest_ring_seconds=RING_SECONDS)
        return Asterisk(self.options(**changed), context)

    def number(self, behaviour: str) -> str:
        """A number that no other call dials, whose telephone behaves like this (`lab/phones.xml`)."""
        return f"91{behaviour}{secrets.randbelow(10**7):07}"

    def invites(self, number: str) -> int:
        """How often this telephone was called."""
        return len([invite for invite in self.phones.invites() if invite.number.endswith(number.removeprefix("91"))])

    async def left(self) -> list[str]:
        """Channels, bridges and recordings that Asterisk holds."""
        return await asyncio.to_thread(self.server.left)


class LabInstallation:
    def __init__(self, lab: Lab, folder: Path, **settings: str) -> None:
        self.lab = lab
        self.installation = Installation(
            folder,
            {
                **lab.server.settings(),
                "RINGBACK_ASTERISK_APP": f"lab-{secrets.token_hex(4)}",
                "RINGBACK_AGENT_RING_SECONDS": "5",
                "RINGBACK_CUSTOMER_RING_SECONDS": "12",
                "RINGBACK_CALLER_ID": "911204567890",
                "RINGBACK_DIAL_GRACE_SECONDS": "4",
                "RINGBACK_LEASE_SECONDS": "8",  # the life of a killed worker's tasks
                **settings,
            },
        )

    async def open(self, *workers: str, ready: str = "/readyz", others: bool = True) -> None:
        """Start it with these calls workers, and with one of each other kind unless `others` is false. Returns when
        `ready` answers 200."""
        processes = self.installation
        await asyncio.to_thread(processes.start_servers)
        processes.start_api()
        for name in workers:
            processes.start_worker(name, "calls")
        if others:
            processes.start_worker("transcripts", "transcripts")
            processes.start_worker("callbacks", "callbacks")
        self.db = Database(processes.database_url, pool_size=4)
        async with self.db.transaction() as session:
            await accounts.create_user(session, "caller@example.com", PASSWORD)
            # The lab's numbers begin like Indian ones, but no telephone in India has them.
            await call_rules.change(session, None, {"destinations": "+91"}, ZoneInfo("Asia/Kolkata"))
        await asyncio.to_thread(processes.wait_until_ready, ready)
        self.api = httpx.AsyncClient(base_url=f"{processes.base_url}/api/developer", timeout=30)
        answer = await self.api.post("/login", json={"email": "caller@example.com", "password": PASSWORD})
        self.api.headers["Authorization"] = f"Bearer {answer.json()['data']['access_token']}"

    async def close(self) -> None:
        await self.api.aclose()
        await self.db.dispose()
        await asyncio.to_thread(self.installation.stop)

    def dialing(self) -> "dict[str, subprocess.Popen[bytes]]":
        """The calls workers that run."""
        running = self.installation.processes.items()
        return {name: worker for name, worker in running if name.startswith("calls") and worker.poll() is None}

    async def place(self, customer: str, agent: str) -> str:
        answer = await self.api.post(
            "/calls/click2call", json={"customer_number": f"+{customer}", "agent_number": f"+{agent}"}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["call_id"])

    async def call(self, call_id: str) -> Call:
        async with self.db.transaction() as session:
            return await session.get_one(Call, call_id)

    async def events(self, call_id: str) -> list[str]:
        """The keys of the call's events."""
        async with self.db.transaction() as session:
            rows = select(CallEventRow.key).filter_by(call_id=call_id).order_by(CallEventRow.happened_at)
            return list(await session.scalars(rows))

    async def reached(self, call_id: str, key: str) -> None:
        """Wait for this event of the call."""

        async def is_there() -> bool:
            return key in await self.events(call_id)

        await eventually(is_there)

    async def ended(self, call_id: str) -> Call:
        """The call, once it has ended and no task is left except its transcription."""

        async def done() -> Call | None:
            call = await self.call(call_id)
            return call if call.status in TERMINAL and not await self._pending_tasks(call_id) else None

        return await eventually(done)  # type: ignore[no-any-return]

    async def _pending_tasks(self, call_id: str) -> int:
        async with self.db.transaction() as session:
            owed = select(func.count()).select_from(Task).where(Task.call_id == call_id, Task.kind != "transcribe")
            return await session.scalar(owed) or 0

    async def transcript(self, call_id: str) -> TranscriptRow:
        async def done() -> TranscriptRow | None:
            async with self.db.transaction() as session:
                row = (await session.scalars(select(TranscriptRow).filter_by(call_id=call_id))).one()
                return row if row.status in ("ready", "failed") else None

        return await eventually(done)  # type: ignore[no-any-return]

    async def recording(self, call_id: str) -> Path:
        """The stored file."""
        async with self.db.transaction() as session:
            return self.installation.data_dir / (await session.get_one(RecordingRow, call_id)).storage_key

    async def nothing_is_left(self, *call_ids: str) -> None:
        """Wait until Asterisk holds nothing of these calls."""
        deadline = time.monotonic() + 30
        while left := [what for what in await self.lab.left() if any(call_id in what for call_id in call_ids)]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.2)

    async def at_most_one_invite(self, *call_ids: str) -> None:
        for call_id in call_ids:
            call = await self.call(call_id)
            assert self.lab.invites(str(call.agent_number)) <= 1, call_id
            assert self.lab.invites(call.customer_number) <= 1, call_id

    async def ends_well(self, call_id: str, status: str = "completed") -> Call:
        """The call, once it has ended with this status, and Asterisk holds nothing of it."""
        call = await self.ended(call_id)
        assert call.status == status, (call.status, call.failure)
        await self.nothing_is_left(call_id)
        await self.at_most_one_invite(call_id)
        return call


MakeInstallation = Callable[..., Awaitable[LabInstallation]]
MakeProvider = Callable[..., Asterisk]
