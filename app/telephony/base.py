"""The telephony port: what every provider of calls offers, in the words of the field.

A click-to-call has two legs. The *agent* is rung first; once the agent has answered, the *customer* is rung
and the two are joined. An adapter translates this port to one provider's protocol and knows nothing else of
Ringback: no database, no HTTP routes. It never retries a dial; who calls it decides that.

Some providers join the two by themselves: one order, and they report. Others dial one leg at a time. Those say
`agent_waiting` once the agent has answered, and are then asked, once, to `connect` the customer. How to write an
adapter is told in docs/adapters.md.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.numbers import Callee, PhoneNumber

CUSTOMER_DIALED = "customer:dialed"
"""The key of the event that says when the customer's leg was dialled, where a provider tells."""


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
    AFTER_HOURS = "after_hours"
    ENDED = "ended"
    """It is over, and whether it was answered is not known."""


class Leg(StrEnum):
    AGENT = "agent"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class CallOrder:
    """One call to place. The adapter gives numbers its provider's shape (`PhoneNumber.format`). All times are in
    seconds."""

    call_id: str
    customer_number: PhoneNumber
    agent_number: Callee
    """An `Extension` only where the adapter's capabilities refuse none."""
    caller_id: PhoneNumber | None = None
    """The number that both are to be shown; None leaves it to the provider."""
    agent_ring_seconds: float = 30.0
    customer_ring_seconds: float = 45.0
    max_call_seconds: float = 3600.0
    """The call is to end after this long, even if nobody of ours is alive to say so. A provider that cannot do that
    is told to hang up."""


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
    """The provider surely did not dial, and `reason` tells a person why. With `retry_after`, trying again in so many
    seconds may help: it could not be reached, say."""

    reason: str
    retry_after: float | None = None


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
    agent_waiting: bool = False
    """The agent has answered, and the provider waits to be told to `connect` the customer."""
    detail: str | None = None
    late: bool = False
    """`at` is when it was noticed; it happened some time before."""
    talk_seconds: float | None = None
    """Of the end: how long both talked, where the provider counts it; None: from the answer to the end."""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """An event of a provider's stream, with the call that it is about."""

    call_id: str
    event: CallEvent


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
    dual_channel: bool = True
    """The recording has the agent on its first channel and the customer on its second."""
    idempotent_place: bool = False
    longest_dial_seconds: float = 0.0
    """`place` and `connect` have given up by then: who asks `fetch` sooner may not see the call yet."""
    poll_seconds: float = 5.0
    """How often asking `fetch` for a live call is welcome when a snapshot does not say."""
    simulated: bool = False
    """Nobody is rung."""
    stream: bool = False
    """Its events can be listened to; one worker at a time does."""
    extension_refusal: str | None = "this telephony provider dials telephone numbers only"
    """Why agents cannot be extensions of a PBX, to follow "101 is an extension of a PBX, and"; None: they can."""


class ProviderError(Exception):
    """The provider could not be asked, or gave no usable answer. Asking again later is safe."""


class RecordingUnavailable(ProviderError):
    """The provider has no (usable) recording of this call and will not have one later."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as a provider hands it over."""

    content_type: str
    chunks: AsyncIterator[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Talk:
    """When in a call the two talked, for adapters whose recordings begin earlier: `began` seconds after the customer
    was dialled, and for `lasted` seconds."""

    began: float
    lasted: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: what was looked at, whether it is in order, what was seen, and what to do about it."""

    what: str
    ok: bool
    seen: str = ""
    fix: str = ""


class TelephonyProvider(ABC):
    """The port. Every method may raise `ProviderError`, except `place` and `connect`, which say `Unknown` instead."""

    name: str
    capabilities: Capabilities

    @abstractmethod
    async def place(self, order: CallOrder) -> PlaceResult:
        """Ask the provider to make this call; where legs are dialled one by one, the agent's. One attempt: a lost
        answer is `Unknown`."""

    async def connect(self, order: CallOrder) -> PlaceResult:
        """Dial the customer and join both. Called at most once, and only after an event said `agent_waiting`."""
        raise NotImplementedError

    @abstractmethod
    async def fetch(self, ref: CallRef) -> Snapshot | None:
        """What the provider says of the call now; None if it does not know such a call (any more)."""

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """The provider's events from now on. Entered once connected; what happened before is asked by `fetch`.

        Raises `ProviderError` when it cannot connect, or is disconnected later.
        """
        raise NotImplementedError

    @abstractmethod
    async def hangup(self, ref: CallRef) -> None:
        """End the call if it is still up, and free all that the provider holds for it but the recording. Unknown and
        ended calls are no error; it is called after every call."""

    @abstractmethod
    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        """The call's recording. Raises `RecordingUnavailable` where there is and will be none."""

    async def discard_recording(self, ref: CallRef) -> None:  # noqa: B027  # most providers keep none for us
        """The recording is stored here, or of no use: the provider need not keep it. One that is gone is no error."""

    @abstractmethod
    def check(self) -> AsyncIterator[Finding]:
        """Look at everything a call needs, in order, without calling anybody."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release connections. The adapter is not used afterwards."""
