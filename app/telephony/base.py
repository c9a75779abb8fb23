"""The telephony port: what every provider of calls offers, in the words of the field.

A click-to-call has two legs. The *agent* is rung first; once the agent has answered, the *customer* is rung
and the two are joined. An adapter translates this port to one provider's protocol and knows nothing else of
Ringback: no database, no HTTP routes, no settings. It never retries a dial; who calls it decides that.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class CallStatus(StrEnum):
    """Where a call stands. The legal moves between these are in `app.call_state`."""

    QUEUED = "queued"
    DIALING = "dialing"
    RINGING = "ringing"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"


class Leg(StrEnum):
    AGENT = "agent"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class CallOrder:
    """One call to place. Numbers are digits with their country code, as stored; the adapter gives them its
    provider's shape."""

    call_id: str
    customer_number: str
    agent_number: str


@dataclass(frozen=True, slots=True)
class CallRef:
    """How to ask a provider about a call: our id always, the provider's once it is known."""

    call_id: str
    reference: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the order; `reference` is its own name for the call."""

    reference: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider surely did not dial, and `reason` tells a person why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may or may not have arrived. The call is *asked about*, never placed again."""

    reason: str


PlaceResult = Accepted | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One thing that happened to a call.

    `status` is where the call stands after it. Ringing and answering of either leg before both are joined is
    `RINGING` with the `leg` named. `key` makes the event unique within its call, so that reports that come
    twice change nothing.
    """

    key: str
    status: CallStatus
    at: datetime
    leg: Leg | None = None
    hangup_cause: str | None = None
    ended_by: Leg | None = None
    has_recording: bool = False
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a provider says of a call now: every event it can tell of, oldest first."""

    events: tuple[CallEvent, ...]
    check_after: float | None = None
    """Seconds after which asking again is worth while; None leaves it to the caller."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, as data, so that nobody asks which adapter it is."""

    hangup: bool
    dual_channel: bool
    """The recording has the agent on its first channel and the customer on its second."""
    idempotent_place: bool = False
    poll_seconds: float = 5.0
    """How often asking `fetch` for a live call is welcome when a snapshot does not say."""


class ProviderError(Exception):
    """The provider could not be asked, or gave no usable answer. Asking again later is safe."""


class RecordingUnavailable(ProviderError):
    """The provider has no (usable) recording of this call and will not have one later."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as a provider hands it over."""

    content_type: str
    chunks: AsyncIterator[bytes] = field(repr=False)


class TelephonyProvider(Protocol):
    """The port. Every method may raise `ProviderError`, except `place`, which says `Unknown` instead."""

    name: str
    capabilities: Capabilities

    async def place(self, order: CallOrder) -> PlaceResult:
        """Ask the provider to make this call. One attempt: a lost answer is `Unknown`."""

    async def fetch(self, ref: CallRef) -> Snapshot | None:
        """What the provider says of the call now; None if it does not know such a call."""

    async def hangup(self, ref: CallRef) -> None:
        """End the call if it is still up. Unknown and ended calls are no error."""

    async def open_recording(self, ref: CallRef) -> Recording:
        """The call's recording. Raises `RecordingUnavailable` where there is and will be none."""

    async def aclose(self) -> None:
        """Release connections. The adapter is not used afterwards."""
