"""Creating calls: those that clients order, and those that only another system reports."""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import time

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app import call_ids, calls, changes, destinations, dids, idempotency, metrics, tasks, tracing, transcripts, usage
from app.call_inserts import CallInsert, CallInserter, InsertedCall, insert_in
from app.call_rules import AppliedRules, RulesReader
from app.calling_hours import next_opening
from app.db import Database, after_commit
from app.dial_rules import after_hours
from app.engine_models import Queue, TaskKind
from app.errors import InactiveUser, InvalidToken, LimitReached, NotAllowed, Unavailable, ValidationFailed
from app.hints import Hints
from app.models import Call, CallType, TranscriptRow, TranscriptStatus
from app.numbers import Callee, Extension, PhoneNumber, digits_of
from app.provider_directory import ProviderDirectory
from app.security import Claims
from app.settings import Settings
from app.telephony.base import Capabilities

log = structlog.get_logger()

_RETRY_AFTER_SECONDS = 30
"""When a client may try again, if the provider takes no new calls."""


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call as its client ordered it."""

    customer_number: PhoneNumber
    agent_number: Callee
    did: PhoneNumber | None = None
    """The rented number whose channel the call takes, and which both people are shown. None: the server's number."""
    shown: PhoneNumber | None = None
    """A number to show that is not rented. Only the operator of the server can ask for it."""
    callback_url: str | None = None
    transcript: bool = True
    language: str | None = None
    record: bool = True
    wait_for_hours: bool = False
    """Outside calling hours the call waits for them, instead of ending at once."""
    idempotency_key: str | None = None
    """Orders of a user with the same key are one order for a day."""
    body_sha256: str = ""
    """Of what the client sent. The same key with another body is refused."""


@dataclass(frozen=True, slots=True)
class CreatedCall:
    """A call that is queued."""

    id: str
    warning: str | None = None
    """Says that the DID has no free channel. The call is accepted nevertheless."""
    provider: str | None = None
    """What will dial it. None: the same order was sent before, and this is its call."""


class CallCreator:
    """Creates the calls that clients order."""

    def __init__(
        self, db: Database, hints: Hints, directory: ProviderDirectory, rules: RulesReader, settings: Settings
    ) -> None:
        self._db = db
        self._inserter = CallInserter(db)
        self._hints = hints
        self._directory = directory
        self._rules = rules
        self._settings = settings

    async def create(self, claims: Claims, order: NewCall) -> CreatedCall:
        """Create a call for the user and queue it. It is committed when this returns.

        Raises `InvalidToken` when the login has ended, `InactiveUser`, `ValidationFailed` for an agent that the
        provider cannot dial, `NotAllowed` for a number that may not be called, `LimitReached`, `Conflict` for a key
        that was sent with another order, `Unavailable` or `ProviderError` if the provider takes no new calls, and for a
        DID what `dids.reserve` raises.
        """
        began = time()
        try:
            created = await self._create(claims, order)
        except (NotAllowed, LimitReached) as error:
            log.warning("call_refused", user_id=claims.user_id, rule=error.rule, reason=error.message)
            raise
        if created.provider is not None:
            metrics.call_created(created.provider, claims.user_id)
            tracing.call_ordered(created.id, began, provider=created.provider)
        return created

    async def _create(self, claims: Claims, order: NewCall) -> CreatedCall:
        rules = await self._rules.get(claims.user_id)
        now = datetime.now(UTC)
        opens_at = next_opening(rules.hours, now)
        prepared = _Prepared(order, rules, opens_at if opens_at > now else None)
        if order.did is None and order.idempotency_key is None and not prepared.is_limited and not prepared.opens_at:
            provider = await self._choose_provider(None, prepared, None)
            call = _call(call_ids.new_call_id(), claims, prepared, provider, None)
            task = _dial_task(await self._inserter.insert(call), provider)
            self._hints.send(task, changed=(call.call_id,))
            return CreatedCall(call.call_id, provider=provider)
        async with self._db.transaction() as session:
            return await self._create_in(session, claims, prepared)

    async def _create_in(self, session: AsyncSession, claims: Claims, prepared: "_Prepared") -> CreatedCall:
        order, reserved, of_did = prepared.order, None, None
        call_id = call_ids.new_call_id()
        if order.idempotency_key is not None:
            key = idempotency.Key(claims.user_id, order.idempotency_key, order.body_sha256)
            earlier = await idempotency.find_call(session, key, call_id)
            if earlier is not None:
                return CreatedCall(earlier.call_id, earlier.warning)
        if prepared.is_limited:
            await usage.check(session, claims.user_id, prepared.rules, self._settings.zone)
        if order.did is not None:
            reserved = await dids.reserve(session, claims.user_id, order.did)
            of_did = reserved.provider
        provider = await self._choose_provider(of_did, prepared, session)
        call = _call(call_id, claims, prepared, provider, reserved)
        task = _dial_task(await insert_in(session, call), provider)
        changes.note(session, call_id)
        if prepared.opens_at is not None and not order.wait_for_hours:
            hours = ", ".join(map(str, prepared.rules.hours))
            await calls.apply_events(session, call_id, [after_hours(hours)], max_call_seconds=0)
        elif prepared.opens_at is None:
            tasks.hint_after_commit(session, task)
        warning = None if reserved is None else reserved.warning
        if warning is not None and order.idempotency_key is not None:
            await idempotency.save_warning(session, key, warning)
        return CreatedCall(call_id, warning, provider)

    async def _choose_provider(self, of_did: str | None, prepared: "_Prepared", session: AsyncSession | None) -> str:
        """The name of the provider that will dial: the DID's, else the default."""
        name = of_did or (await self._directory.get_default(session)).name
        capabilities = await self._directory.get_capabilities(name, session)
        order = prepared.order
        if isinstance(order.agent_number, Extension) and capabilities.extension_refusal is not None:
            refusal = f"{order.agent_number} is an extension of a PBX, and {capabilities.extension_refusal}"
            raise ValidationFailed(f"agent_number: {refusal}")
        for field, number in (("customer_number", order.customer_number), ("agent_number", order.agent_number)):
            if isinstance(number, PhoneNumber):
                self._check_destination(field, number, prepared.rules, capabilities)
        return name

    def _check_destination(
        self, field: str, number: PhoneNumber, rules: AppliedRules, capabilities: Capabilities
    ) -> None:
        if number.digits.startswith(capabilities.sandbox_prefixes):
            return
        at_home = None if capabilities.simulated else (self._settings.home_country,)
        for allowed in (rules.installation.destinations or at_home, rules.user.destinations):
            refusal = None if allowed is None else destinations.find_refusal(number, allowed)
            if refusal is not None:
                raise NotAllowed(f"{field}: {number} {refusal}", rule="destinations")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An order, and what applies to it."""

    order: NewCall
    rules: AppliedRules
    opens_at: datetime | None
    """When calling hours begin. None: they are now, or there are none."""

    @property
    def is_limited(self) -> bool:
        return any(rules.limits.are_set for rules in self.rules.both)


def _call(
    call_id: str, claims: Claims, prepared: _Prepared, provider: str, reserved: dids.Reservation | None
) -> CallInsert:
    order = prepared.order
    return CallInsert(
        session_id=claims.session_id,
        user_id=claims.user_id,
        call_id=call_id,
        customer_number=order.customer_number.digits,
        agent_number=order.agent_number.digits,
        did=digits_of(order.did or order.shown),
        did_id=reserved.did_id if reserved else None,
        callback_url=order.callback_url,
        language=order.language,
        record=order.record and prepared.rules.record,
        waits_for_hours=order.wait_for_hours,
        dial_after=prepared.opens_at if order.wait_for_hours else None,
        traceparent=tracing.find_traceparent(),
        provider=provider,
        transcript_id=transcripts.new_transcript_id(),
        transcript_status=TranscriptStatus.PENDING if order.transcript else TranscriptStatus.DISABLED,
    )


def _dial_task(inserted: InsertedCall | None, provider: str) -> tasks.AddedTask:
    """The dial task of a call that was inserted. Raises why it was not."""
    if inserted is None:
        raise InvalidToken
    if not inserted.is_active:
        raise InactiveUser
    if inserted.is_listed:
        raise NotAllowed("customer_number: this number is on the do-not-call list", rule="do_not_call")
    if inserted.task_id is None:
        raise Unavailable(
            f"The telephony provider {provider} takes no new calls. Its operator can change that: `ringback providers "
            f"resume {provider}`, or make another one the default",
            retry_after=_RETRY_AFTER_SECONDS,
        )
    return tasks.AddedTask(inserted.task_id, Queue.CALLS, tasks.dial_lane(provider))


@dataclass(frozen=True, slots=True)
class NewReportedCall:
    """A call that our provider never had, as its first report describes it. Numbers are E.164 digits."""

    user_id: str
    customer_number: str
    agent_number: str | None
    did: str | None
    did_id: str | None
    call_type: CallType
    callback_url: str | None
    date: str | None
    """As `report_fields.read_date` returns it."""
    transcript: bool


async def create_reported_call(
    session: AsyncSession, reported: NewReportedCall, *, answer_timeout_seconds: float
) -> Call:
    """Create the call, in the session's transaction."""
    call = Call(
        id=call_ids.new_call_id(),
        user_id=reported.user_id,
        customer_number=reported.customer_number,
        agent_number=reported.agent_number,
        did=reported.did,
        did_id=reported.did_id,
        call_type=reported.call_type,
        callback_url=reported.callback_url,
        only_reported=True,
        reported_date=reported.date,
    )
    calls.start_reported(call, answer_timeout_seconds=answer_timeout_seconds)
    session.add(call)
    await session.flush()
    status = TranscriptStatus.PENDING if reported.transcript else TranscriptStatus.DISABLED
    session.add(
        TranscriptRow(id=transcripts.new_transcript_id(), call_id=call.id, user_id=reported.user_id, status=status)
    )
    await session.flush()
    await tasks.add(session, TaskKind.TRACK, call.id, delay=answer_timeout_seconds)
    after_commit(session, metrics.call_created, metrics.REPORTED, call.user_id)
    after_commit(session, tracing.call_ordered, call.id, time(), provider=metrics.REPORTED)
    return call
