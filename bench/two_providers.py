"""Judges a chaos run over two providers: each call is at its own, and the second has never more than it can bear.

What the providers recorded is the evidence (`bench.telephony_backends`), and not the tables of the engine that decides
by them. The limit is so low that calls wait for it. A run in which it was never reached proves nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bench.installation import Installation

FIRST, SECOND = "environment", "second"
SECOND_DID = "911140000001"
"""Its calls are the second provider's. All others are the first one's."""
PACE_PER_SECOND = 5


@dataclass(frozen=True, slots=True)
class PlacedLeg:
    """A telephone that a provider was asked to ring, as the provider recorded it."""

    call_id: str
    provider: str
    at: datetime
    is_agent: bool = True


def add_second(installation: Installation, values: Mapping[str, str], *, at_once: int, user: str) -> None:
    """Add the second provider, of the same kind as the first, and the user's DID whose calls it dials."""
    kind = installation.settings.get("RINGBACK_TELEPHONY_PROVIDER", "simulator")
    options = [part for name, value in values.items() for part in ("-o", f"{name}={value}")]
    limits = ("--pace", f"{PACE_PER_SECOND}/second", "--calls-at-once", str(at_once))
    installation.run("providers", "add", SECOND, "--kind", kind, *options, *limits)
    installation.run("dids", "add", SECOND_DID, "--user", user, "--provider", SECOND)


def provider_of(did: str | None) -> str:
    """Where calls of this DID belong."""
    return SECOND if did == SECOND_DID else FIRST


def most_at_once(calls: Iterable[tuple[datetime, datetime]]) -> int:
    """How many of these were up at one moment. Each is its beginning and its end."""
    changes = [change for began, ended in calls for change in ((began, 1), (ended, -1))]
    up = most = 0
    for _, change in sorted(changes):  # who leaves at the same moment, leaves first
        up += change
        most = max(most, up)
    return most


def find_violations(legs: Iterable[PlacedLeg], dids: Mapping[str, str | None], most: int, limit: int) -> list[str]:
    """What is wrong. `dids` has every call's DID, `most` is how many calls the second provider had at once."""
    found = [
        f"{leg.call_id} was placed at {leg.provider}, and belongs to {provider_of(dids[leg.call_id])}"
        for leg in legs
        if leg.call_id in dids and leg.provider != provider_of(dids[leg.call_id])
    ]
    if most > limit:
        found.append(f"the second provider had {most} calls at once, and its limit is {limit}")
    return found


def figures(legs: Iterable[PlacedLeg], most: int, limit: int) -> list[str]:
    """Lines for the result."""
    dialed = [leg for leg in legs if leg.is_agent]
    counted = Counter(leg.provider for leg in dialed)
    times = sorted(leg.at for leg in dialed if leg.provider == SECOND)
    in_a_second = max((sum(at <= later < at + timedelta(seconds=1) for later in times) for at in times), default=0)
    return [
        f"orders at each provider    {', '.join(f'{count} {name}' for name, count in sorted(counted.items()))}",
        f"second provider at once    {most} calls at most, limit {limit}; dialed in one second: {in_a_second} at most, "
        f"pace {PACE_PER_SECOND}",
    ]
