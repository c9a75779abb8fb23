"""What became of the calls of a run: the state of each at its end, and what is wrong with it.

What the telephony system recorded is the evidence (`bench.telephony_backends`), and not the tables of the engine.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Set

from sqlalchemy import text

from app.call_state import TERMINAL
from app.db import Database
from bench.telephony_backends import Observed
from bench.two_providers import PlacedLeg

PATIENCE_SECONDS = 120.0
"""A run ends after this long without progress."""


async def wait_for_ends(db: Database) -> None:
    """Wait until no task is left, or there is no progress."""
    left, since = -1, time.monotonic()
    while True:
        async with db.statement() as connection:
            now = (await connection.execute(text("SELECT count(*) FROM tasks"))).scalar_one()
        if now == 0:
            return
        if now != left:
            left, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE_SECONDS:
            return
        await asyncio.sleep(0.5)


async def observe(db: Database) -> list[Observed]:
    """Every call."""
    query = (
        "SELECT c.id, c.customer_number, c.agent_number, c.status, t.status, t.failure, c.failure, c.did, c.ended_at "
        "FROM calls c JOIN transcripts t ON t.call_id = c.id"
    )
    async with db.statement() as connection:
        return [Observed(*row) for row in await connection.execute(text(query))]


async def list_undelivered(db: Database) -> list[str]:
    """Callbacks that no receiver accepted, and why."""
    query = "SELECT event, call_id, attempts, last_answer FROM deliveries WHERE status <> 'delivered'"
    async with db.statement() as connection:
        rows = (await connection.execute(text(query))).all()
    return [f"{event} of {call_id} was not delivered, in {tries} tries: {said}" for event, call_id, tries, said in rows]


def find_lost_and_doubled(calls: Iterable[Observed], placed: Iterable[PlacedLeg], accepted: Set[str]) -> list[str]:
    """Calls that were lost, dialed twice, dialed though nobody ordered them, or that did not end."""
    ledger = Counter(leg.call_id for leg in placed if leg.is_agent)
    known = {call.call_id for call in calls}
    found = [f"{call_id} was accepted and is lost" for call_id in accepted - known]
    found += [f"{call_id} was dialed, and nobody ordered it" for call_id in ledger.keys() - known]
    found += [f"{call_id} was dialed {times} times" for call_id, times in ledger.items() if times > 1]
    for call in calls:
        if call.status not in TERMINAL:
            found.append(f"{call.call_id} is still {call.status}")
        if call.transcript not in ("ready", "failed"):
            found.append(f"the transcript of {call.call_id} is still {call.transcript}")
        if call.call_id not in ledger and call.status != "failed":
            found.append(f"{call.call_id} was never dialed, and is {call.status}")
    return found
