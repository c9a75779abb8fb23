"""Calls of two legs, for the fakes of hosted providers. They follow the clock, and the number says what happens."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from app.numbers import PhoneNumber
from app.telephony.base import AdapterContext, CallStatus, Leg
from tests.provider_contract import ExpectedEnding

AGENT, CUSTOMER, PATIENT_CUSTOMER = "911000000001", "912020000001", "912000000001"
BUSY, NEVER, NOT_IN_SERVICE = "914860000001", "913000000001", "914040000001"
CALLER_ID = PhoneNumber("14155550100")

ENDINGS = (
    ExpectedEnding(BUSY, AGENT, CallStatus.BUSY, "user_busy", Leg.CUSTOMER),
    ExpectedEnding(NEVER, AGENT, CallStatus.NO_ANSWER, "no_answer", Leg.CUSTOMER),
    ExpectedEnding(CUSTOMER, NEVER, CallStatus.NO_ANSWER, "no_answer", Leg.AGENT),
    ExpectedEnding(CUSTOMER, BUSY, CallStatus.BUSY, "user_busy", Leg.AGENT),
)

_RING, _TALK = 0.15, 0.6
_SHORTER = 10.0
"""Ring times are so many times shorter than ordered."""


@dataclass
class FakeLeg:
    """One leg, as it stands. `status` is `queued`, `ringing`, `answered`, or how it ended."""

    number: str
    created: datetime
    status: str = "queued"
    answered: datetime | None = None
    ended: datetime | None = None


@dataclass
class TwoLegCall:
    """A call whose legs are a function of time."""

    agent: str
    customer: str
    agent_ring: float
    customer_ring: float
    placed: datetime = field(default_factory=lambda: datetime.now(UTC))
    hung_up: datetime | None = None

    def hang_up(self) -> None:
        self.hung_up = self.hung_up or datetime.now(UTC)

    def legs(self) -> tuple[FakeLeg, FakeLeg | None]:
        """The agent's leg, and the customer's once it is dialed."""
        agent = self._dialed(self.agent, self.placed, self.agent_ring)
        if agent.answered is None:
            return agent, None
        customer = self._dialed(self.customer, agent.answered, self.customer_ring)
        if customer.answered is not None and customer.ended is None:
            talks = 3600 if self.customer == PATIENT_CUSTOMER else _TALK
            self._end(customer, "completed", customer.answered + timedelta(seconds=talks))
        if customer.ended is not None:
            self._end(agent, "completed", customer.ended)
        return agent, customer

    def _dialed(self, number: str, created: datetime, ring: float) -> FakeLeg:
        leg = FakeLeg(number, created)
        if created + timedelta(seconds=0.05) <= self._now():
            leg.status = "ringing"
        after = {NEVER: ring / _SHORTER}.get(number, _RING)
        end = {NEVER: "no-answer", BUSY: "busy", NOT_IN_SERVICE: "failed"}.get(number)
        at = created + timedelta(seconds=after)
        if end is not None:
            self._end(leg, end, at)
        elif at <= self._now():
            leg.status, leg.answered = "answered", at
        if leg.answered is None and leg.ended is None and self.hung_up is not None:
            leg.status, leg.ended = "canceled", self.hung_up
        return leg

    def _end(self, leg: FakeLeg, status: str, at: datetime) -> None:
        if at <= self._now():
            leg.status, leg.ended = status, at
        elif self.hung_up is not None:
            leg.status, leg.ended = status if leg.answered else "canceled", self.hung_up

    def _now(self) -> datetime:
        """The time until which things happen."""
        return datetime.now(UTC) if self.hung_up is None else min(self.hung_up, datetime.now(UTC))


def adapter_context() -> AdapterContext:
    return AdapterContext("installation", "hosted", Path(), "IN", 45.0, has_public_address=True)


@asynccontextmanager
async def running(routes: Sequence[web.RouteDef]) -> AsyncIterator[str]:
    """A server with these routes, and its URL."""
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
