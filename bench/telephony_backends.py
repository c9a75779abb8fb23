"""The telephony systems that `bench.chaos` runs against: their settings, their faults, and what they recorded."""

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from aiohttp import web

from app.telephony.base import CallRef
from app.telephony.simulator import Simulator
from bench.two_providers import FIRST, SECOND, PlacedLeg, most_at_once
from lab.asterisk import AsteriskServer, free_port
from lab.phones import Phones
from lab.proxy import Fault, FaultyProxy

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of one call at the end, from the database."""

    call_id: str
    customer: str
    agent: str
    status: str
    transcript: str
    failure: str | None
    """Why there is no transcript."""
    detail: str | None
    """More about its end."""
    did: str | None
    ended_at: datetime | None


InjectedFault = tuple[str, Callable[[], Awaitable[None]]]


class TelephonyBackend(Protocol):
    """A telephony system, seen from outside."""

    settings: dict[str, str]
    faults: list[InjectedFault]
    second: dict[str, str]
    """The options of a second provider of the same kind."""
    second_at_once: int
    """Its limit of calls at once."""
    unwritten: set[str]
    """Calls whose talk was not written to disk yet when the system was killed. Their recording is lost."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def new_order(self) -> dict[str, str]: ...
    async def placed(self, calls: Iterable[Observed]) -> list[PlacedLeg]:
        """Every telephone that was to ring, as the system recorded it. Includes calls that are not in the database."""

    async def most_at_second(self, calls: Iterable[Observed]) -> int:
        """How many calls the second provider had at once, at most."""

    async def violations(self, calls: Iterable[Observed]) -> list[str]:
        """What else is wrong."""

    def figures(self) -> list[str]:
        """Lines for the result."""


class SimulatorBackend:
    """The simulator. The engine never reads the files of its ledger back into its tables."""

    # Every possible end. Silence is answered, too, and costs no recognition.
    _CUSTOMERS = (
        *["919999999999"] * 6,
        *["15005550005"] * 6,
        *[f"1500555000{ending}" for ending in (1, 2, 3, 4, 6, 7)],
        *["15005550001"] * 2,
    )
    _AGENTS = (*["918888888888"] * 10, "15005550011", "15005550012")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.faults: list[InjectedFault] = []
        self.second = {"latency_seconds": "0.2"}
        self.second_at_once = 4
        self.unwritten: set[str] = set()
        self.settings = {
            "RINGBACK_DIAL_GRACE_SECONDS": "6",
            # A provider takes a moment to answer, so a worker can be killed before and after an order arrives.
            "RINGBACK_SIMULATOR_LATENCY_SECONDS": "0.3",
        }

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def new_order(self) -> dict[str, str]:
        return {"customer_number": random.choice(self._CUSTOMERS), "agent_number": random.choice(self._AGENTS)}

    async def placed(self, calls: Iterable[Observed]) -> list[PlacedLeg]:
        ledgers = sorted((self._folder / "simulator").glob("*/*.jsonl"))
        lines = [json.loads(line) for path in ledgers for line in path.read_text().splitlines()]
        return [
            PlacedLeg(line["call_id"], line["provider"], datetime.fromisoformat(line["at"]))
            for line in lines
            if line["request"] == "place"
        ]

    async def most_at_second(self, calls: Iterable[Observed]) -> int:
        # The end is the simulator's own. A call that it never reports has none, and is up until it is given up.
        given_up = {call.call_id: call.ended_at for call in calls}
        simulator, up = Simulator(self._folder / "simulator"), []
        for leg in await self.placed(calls):
            if leg.provider == SECOND:
                snapshot = await simulator.fetch(CallRef(leg.call_id, None))
                ended = snapshot.events[-1].at if snapshot and snapshot.events else given_up.get(leg.call_id)
                up.append((leg.at, ended or datetime.max.replace(tzinfo=leg.at.tzinfo)))
        return most_at_once(up)

    async def violations(self, calls: Iterable[Observed]) -> list[str]:
        return []

    def figures(self) -> list[str]:
        return []


class AsteriskBackend:
    """A real Asterisk with SIPp telephones. A proxy before ARI is slow, refuses requests, and loses answers."""

    _AGENTS = (*["100"] * 12, "101", "486", "300", "302")
    _CUSTOMERS = (*["203"] * 4, *["202"] * 4, "486", "603", "404", "503", "300", "301", "302", "303")
    _FAULTY = 0.04
    """The share of requests with a fault."""

    def __init__(self, folder: Path) -> None:
        conversation = _ROOT / "app/telephony/conversations/callback.wav"
        self.phones = Phones(folder / "phones", port=free_port(socket.SOCK_DGRAM), conversation=conversation)
        self.server = AsteriskServer(folder / "asterisk", phones_port=self.phones.port)
        self.other_server = AsteriskServer(folder / "other", phones_port=self.phones.port)
        self.second = self.other_server.options()
        self.second_at_once = 2
        self._most_at_second = 0
        self._watching: asyncio.Task[None] | None = None
        self.proxy = FaultyProxy(self.server.url)
        self.faults: list[InjectedFault] = [
            ("the event stream cut", self.proxy.cut_sockets),
            ("Asterisk frozen for 6 s", self._freeze),
            ("the event stream cut", self.proxy.cut_sockets),
            ("Asterisk killed -9 and started again", self._kill),
        ]
        self.unwritten: set[str] = set()
        self.settings: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._invites: dict[str, Counter[int]] = {}
        self._used: set[str] = set()

    async def start(self) -> None:
        await asyncio.to_thread(self.phones.start)
        await asyncio.to_thread(self.server.start)
        await asyncio.to_thread(self.other_server.start)
        await self.proxy.start()
        self._watching = asyncio.create_task(self._watch_second())
        self.settings = self.server.settings() | {
            "RINGBACK_ASTERISK_URL": self.proxy.url,
            "RINGBACK_AGENT_RING_SECONDS": "4",
            "RINGBACK_CUSTOMER_RING_SECONDS": "4",
            "RINGBACK_MAX_CALL_SECONDS": "20",
        }
        kinds: dict[str, Fault] = {
            "slow": Fault(self._now_and_then, delay=1.0),
            "500": Fault(self._now_and_then, status=500),
            "409": Fault(self._now_and_then, status=409),
            "request lost": Fault(self._now_and_then, lose_request=True),
            "answer lost": Fault(self._now_and_then, lose_answer=True),
        }
        self._kinds = kinds
        self.proxy.faults += kinds.values()

    def _now_and_then(self, asked: web.BaseRequest) -> bool:
        return "/events" not in asked.path and random.random() < self._FAULTY / 5

    async def _watch_second(self) -> None:
        """Nothing is done to the second server, so it can be asked all the time. A call that was hung up is there for a
        moment longer, so only what is seen twice counts."""
        before: set[str] = set()
        while True:
            now = {channel.rpartition("-")[0] for channel in await asyncio.to_thread(self.other_server.channels)}
            self._most_at_second = max(self._most_at_second, len(now & before))
            before = now
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.proxy.stop()
        await asyncio.to_thread(self.server.stop)
        await asyncio.to_thread(self.other_server.stop)
        await asyncio.to_thread(self.phones.stop)

    def new_order(self) -> dict[str, str]:
        return {
            "customer_number": self._number(random.choice(self._CUSTOMERS)),
            "agent_number": self._number(random.choice(self._AGENTS)),
        }

    def _number(self, behaviour: str) -> str:
        """A new number, so that its INVITEs belong to one leg of one call."""
        number = f"91{behaviour}{len(self._used):07}"
        self._used.add(number)
        return number

    async def placed(self, calls: Iterable[Observed]) -> list[PlacedLeg]:
        agents = {call.agent: call.call_id for call in calls}
        customers = {call.customer: call.call_id for call in calls}
        ports = {self.server.sip_port: FIRST, self.other_server.sip_port: SECOND}
        return [
            PlacedLeg(
                agents.get(invite.number) or customers.get(invite.number) or invite.number,
                ports[invite.from_port],
                invite.at,
                is_agent=invite.number not in customers,
            )
            for invite in self.phones.invites()
        ]

    async def most_at_second(self, calls: Iterable[Observed]) -> int:
        if self._watching is not None and self._watching.done():
            self._watching.result()  # raises: it could not watch
        return self._most_at_second

    async def violations(self, calls: Iterable[Observed]) -> list[str]:
        invites = Counter(invite.number for invite in self.phones.invites())
        found = []
        for leg in ("agent", "customer"):
            numbers = {call.call_id: getattr(call, leg) for call in calls}
            self._invites[leg] = Counter(invites[number] for number in numbers.values())
            found += [
                f"{leg} of {call_id} was called {invites[number]} times"
                for call_id, number in numbers.items()
                if invites[number] > 1
            ]
        found += [
            f"{call.call_id} is completed, and its customer was never called"
            for call in calls
            if call.status == "completed" and not invites[call.customer]
        ]
        for server in (self.server, self.other_server):
            found += [f"left at Asterisk: {what}" for what in await asyncio.to_thread(server.left)]
        return found

    def figures(self) -> list[str]:
        met = ", ".join(f"{len(fault.hits)} {name}" for name, fault in self._kinds.items())
        return [
            f"faults of ARI              {met}",
            *[
                f"INVITEs per {leg:<14} {', '.join(f'{times}: {n} calls' for times, n in sorted(counted.items()))}"
                for leg, counted in self._invites.items()
            ],
        ]

    async def _freeze(self) -> None:
        self.server.freeze()
        await asyncio.sleep(6)
        self.server.thaw()

    async def _kill(self) -> None:
        """Kill Asterisk in the first second of a talk, if there is one."""
        deadline = time.monotonic() + 30
        while not await asyncio.to_thread(self._somebody_just_answered) and time.monotonic() < deadline:
            pass
        await asyncio.to_thread(self.server.kill)
        self.unwritten = self._empty_recordings()
        await asyncio.sleep(2)
        await asyncio.to_thread(self.server.start)

    def _somebody_just_answered(self) -> bool:
        talking = {channel.removesuffix("-customer") for channel in self.server.answered()}
        return bool(talking & self._empty_recordings())

    def _empty_recordings(self) -> set[str]:
        """Calls of which Asterisk has at most something in memory, because it writes one second at a time."""
        empty = set()
        for path in self.server.recordings():
            with suppress(FileNotFoundError):  # deleted just now
                if not path.stat().st_size:
                    empty.add(path.stem)
        return empty


BACKENDS: dict[str, Callable[[Path], TelephonyBackend]] = {"simulator": SimulatorBackend, "asterisk": AsteriskBackend}
