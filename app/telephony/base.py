"""The telephony port: what every provider of calls offers.

A click-to-call has two legs. The provider dials the *agent* first. Once the agent has answered, it dials the *customer*
and joins the two. An adapter translates this port to one provider's protocol and knows nothing else of Ringback: no
database, no HTTP routes. It never repeats a dial. Its caller decides that.

Some providers join both people by themselves: they get one order and report. Others dial one leg at a time. Those
report `agent_waiting` once the agent has answered, and are then asked once to `connect` the customer. docs/adapters.md
says how to write an adapter.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self

from app.numbers import Callee, NumberRules, PhoneNumber
from app.options import Options, SettingsError

CUSTOMER_DIALED = "customer:dialed"
"""Key of the event that the customer's leg was dialed, where a provider reports it."""


class CallStatus(StrEnum):
    """Where a call stands. `app.call_state` has the moves between these."""

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
    """The call is over, and it is unknown whether it was answered."""


class Leg(StrEnum):
    AGENT = "agent"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class CallOrder:
    """One call to place. The adapter formats the numbers for its provider (`PhoneNumber.format`). All times are in
    seconds."""

    call_id: str
    customer_number: PhoneNumber
    agent_number: Callee
    """An `Extension` only if the adapter's capabilities allow extensions."""
    caller_id: PhoneNumber | None = None
    """The number that both people are shown. None: the provider decides."""
    agent_ring_seconds: float = 30.0
    customer_ring_seconds: float = 45.0
    max_call_seconds: float = 3600.0
    """The call must end after this long, even if no process of ours lives. A provider that cannot do that is asked to
    hang up."""
    record: bool = True
    """Whether the provider may record the call."""
    notify_url: str | None = None
    """Where the provider may send notifications of this call. It holds a secret. None: this server has no public
    address."""
    instructions_url: str | None = None
    """Where the provider may ask for `TelephonyProvider.instructions`. None: this server has no public address."""


@dataclass(frozen=True, slots=True)
class CallRef:
    """A call's identity at its provider: always our id, and the provider's reference once it is known.

    The other fields are what a call is looked up by whose reference was lost with the answer to its order.
    """

    call_id: str
    reference: str | None
    customer_number: PhoneNumber | None = None
    agent_number: Callee | None = None
    caller_id: PhoneNumber | None = None
    """As in the call's order."""
    dialed_at: datetime | None = None
    """When the order left, at the earliest. By our clock."""
    taken: frozenset[str] = frozenset()
    """References of our other calls between these numbers. This call is none of them."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the order. `reference` is its own name for the call."""

    reference: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider certainly did not dial. `reason` is for a person. With `retry_after`, another attempt after so many
    seconds may work, as when the provider could not be reached."""

    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have arrived. The worker asks with `fetch`, and never places the call again."""

    reason: str


PlaceResult = Accepted | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class CallEvent:
    """Something that happened to a call.

    `status` is the call's status after it. While a leg rings or is answered, before both people are joined, it is
    `RINGING` with the `leg`. `key` is unique in the call, so that an event that comes twice counts once.
    """

    key: str
    status: CallStatus
    at: datetime
    leg: Leg | None = None
    hangup_cause: str | None = None
    ended_by: Leg | None = None
    has_recording: bool = False
    agent_waiting: bool = False
    """The agent has answered, and the provider waits for `connect` to dial the customer."""
    detail: str | None = None
    late: bool = False
    """`at` is when the event was noticed. It happened some time before."""
    talk_seconds: float | None = None
    """Of an end: how long both people talked, if the provider counts it. None: from the answer to the end."""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """An event of a provider's stream, with its call."""

    call_id: str
    event: CallEvent


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a provider knows of a call now: its events, oldest first."""

    events: tuple[CallEvent, ...]
    check_after: float | None = None
    """Seconds until asking again makes sense. None: the caller decides."""
    reference: str | None = None
    """The reference of the call, if the adapter had to look it up."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, as data, so that no code asks which adapter it is."""

    hangup: bool
    """It can end a call that is in progress."""
    cancel: bool = True
    """It can end a call that the customer has not answered yet."""
    discard_recording: bool = False
    """It keeps the recording for us, until it is told to delete it."""
    dual_channel: bool = True
    """The recording has the agent on one channel and the customer on another (`Recording.agent_channel`)."""
    idempotent_place: bool = False
    longest_dial_seconds: float = 0.0
    """The longest time that `place` and `connect` take. Before that, `fetch` may not know the call yet."""
    poll_seconds: float = 5.0
    """How often `fetch` may be called for a live call, if a snapshot does not say."""
    simulated: bool = False
    """No telephone rings."""
    sandbox_prefixes: tuple[str, ...] = ()
    """Numbers that begin with these E.164 digits are for trying things out, and can always be called."""
    stream: bool = False
    """The provider has a stream of events. One worker at a time listens."""
    extension_refusal: str | None = "this telephony provider dials telephone numbers only"
    """Why agents cannot be extensions of a PBX, as the end of a sentence: "101 is an extension of a PBX, and …". None:
    they can."""


class ProviderError(Exception):
    """The provider could not be asked, or its answer is unusable. Asking again later is safe: after `retry_after`
    seconds, if the provider says when."""

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RecordingUnavailable(ProviderError):
    """The provider has no usable recording of this call, and will not have one."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, as a provider sends it."""

    content_type: str
    chunks: AsyncIterator[bytes] = field(repr=False)
    agent_channel: int = 1
    """Of a recording with two channels: which one is the agent, 1 or 2."""


@dataclass(frozen=True, slots=True)
class Talk:
    """When both people talked, for adapters whose recordings begin earlier: from `began` seconds after the customer was
    dialed, for `lasted` seconds."""

    began: float
    lasted: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: what was examined, whether it is in order, what was seen, and how to fix it."""

    what: str
    ok: bool
    seen: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Notification:
    """A provider's request to `CallOrder.notify_url`. It is never believed. It makes the next `fetch` sooner, and may
    name the call's reference, which the provider is asked about."""

    url: str
    """Exactly as the order gave it, with the query that the provider added."""
    method: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    form: Mapping[str, str]
    """The fields of the body, if it is a form."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a provider is to do with a call, for those that ask once the agent has answered."""

    content_type: str
    body: str


@dataclass(frozen=True, slots=True)
class AdapterContext:
    """What an adapter may know of the installation that it dials for."""

    installation: str
    """The id of this installation, among all that use the same phone system."""
    provider: str
    """The name of this provider, as `ringback providers list` shows it."""
    data_dir: Path
    home_country: str
    """ISO code, as `IN`."""
    longest_ring_seconds: float
    """The longer of both legs' ring times."""
    has_public_address: bool = False
    """Whether orders have a `notify_url` and an `instructions_url`."""

    def read_caller_id(self, written: str | None) -> PhoneNumber | None:
        """The number of an option `caller_id`, in any spelling. Raises `SettingsError`."""
        try:
            return None if written is None else NumberRules(self.home_country).read(written)
        except ValueError as error:
            raise SettingsError(f"caller_id: {error}") from None


class TelephonyProvider(ABC):
    """The port. Every method may raise `ProviderError`, except `place` and `connect`, which return `Unknown`
    instead."""

    kind: ClassVar[str]
    """The adapter's name, as in `ringback providers add NAME --kind KIND`."""
    options: ClassVar[type[Options]]
    """What can be set for it. Secrets are of type `SecretStr`."""
    capabilities: Capabilities

    @classmethod
    def make(cls, options: Any, context: AdapterContext) -> Self:
        """An adapter with these `options`. It connects when it is first used."""
        raise NotImplementedError

    @abstractmethod
    async def place(self, order: CallOrder) -> PlaceResult:
        """Ask the provider to make this call, or where legs are dialed one by one, to dial the agent. One attempt: if
        the answer is lost, it is `Unknown`."""

    async def connect(self, order: CallOrder) -> PlaceResult:
        """Dial the customer and join both people. Called at most once, and only after an event with `agent_waiting`."""
        raise NotImplementedError

    @abstractmethod
    async def fetch(self, ref: CallRef) -> Snapshot | None:
        """What the provider knows of the call now. None: it does not know the call, or no longer."""

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """The provider's events from now on. Entered once it is connected. `fetch` gives what happened before.

        Raises `ProviderError` when it cannot connect, or is disconnected later.
        """
        raise NotImplementedError

    @abstractmethod
    async def hangup(self, ref: CallRef) -> None:
        """End the call if it is up, and free everything that the provider holds for it except the recording. Called
        after every call, so an unknown or ended call is not an error."""

    @abstractmethod
    async def open_recording(self, ref: CallRef, talk: Talk | None) -> Recording:
        """The call's recording. Raises `RecordingUnavailable` if there is none, and will be none. Raises
        `ProviderError` if it may still come."""

    async def discard_recording(self, ref: CallRef) -> None:  # noqa: B027  # most providers keep none for us
        """Let the provider delete the recording, because it is stored here or not needed. A missing recording is not an
        error."""

    def is_authentic(self, notification: Notification) -> bool:
        """Whether the provider itself sent this. The secret in its URL is checked already, so an adapter whose provider
        signs nothing accepts everything. Pure."""
        return True

    def reference_in(self, notification: Notification) -> str | None:
        """The reference of its call that an authentic notification names, if it does. It is needed for a call whose
        reference was lost with the answer to its order. Pure."""
        return None

    def instructions(self, order: CallOrder) -> Instructions:
        """What the provider is to do with this call now that the agent has answered. Pure."""
        raise NotImplementedError

    @abstractmethod
    def check(self) -> AsyncIterator[Finding]:
        """Examine everything that a call needs, in order, without calling anybody."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release connections. The adapter is not used afterwards."""
