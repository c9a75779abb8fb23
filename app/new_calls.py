"""Creating calls: those that clients order, and those that only another system reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app import calls, dids, tasks, transcripts
from app.db import Compiled, Database
from app.engine_models import Queue, TaskKind
from app.errors import InactiveUser, InvalidToken, Unavailable, ValidationFailed
from app.hints import Hints
from app.models import Call, CallType, TranscriptRow, TranscriptStatus
from app.numbers import Callee, Extension, PhoneNumber, digits_of
from app.provider_directory import ProviderDirectory
from app.security import Claims

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


@dataclass(frozen=True, slots=True)
class CreatedCall:
    """A call that is queued."""

    id: str
    warning: str | None = None
    """Says that the DID has no free channel. The call is accepted nevertheless."""


# One statement and one round trip: check the login, create the call, its first event, its transcript and its dial task.
_CREATE = text("""
WITH caller AS (
    SELECT users.id, users.is_active
    FROM login_sessions JOIN users ON users.id = login_sessions.user_id
    WHERE login_sessions.id = :session_id AND users.id = :user_id
      AND login_sessions.expires_at > now() AND (login_sessions.revoked_at IS NULL OR NOT users.is_active)
), call AS (
    INSERT INTO calls (id, user_id, customer_number, agent_number, did, did_id, callback_url, language, provider)
    SELECT :call_id, caller.id, :customer_number, :agent_number, CAST(:did AS text), CAST(:did_id AS text),
           CAST(:callback_url AS text), CAST(:language AS text), providers.name
    FROM caller, providers WHERE caller.is_active AND providers.name = :provider AND providers.drained_at IS NULL
    RETURNING id, user_id, provider
), event AS (
    INSERT INTO call_events (call_id, key, status, happened_at) SELECT id, 'queued', 'queued', now() FROM call
), transcript AS (
    INSERT INTO transcripts (id, call_id, user_id, status)
    SELECT :transcript_id, id, user_id, CAST(:transcript_status AS text) FROM call
), task AS (
    INSERT INTO tasks (kind, queue, call_id, user_id, lane)
    SELECT 'dial', 'calls', id, user_id, 'dial:' || provider FROM call
    RETURNING id
)
SELECT caller.is_active, (SELECT id FROM task) AS task_id FROM caller
""")
_CREATE_COMPILED = Compiled(_CREATE)


class CallCreator:
    """Creates the calls that clients order."""

    def __init__(self, db: Database, hints: Hints, directory: ProviderDirectory) -> None:
        self._db = db
        self._hints = hints
        self._directory = directory

    async def create(self, claims: Claims, order: NewCall) -> CreatedCall:
        """Create a call for the user and queue it. It is committed when this returns.

        Raises `InvalidToken` when the login has ended, `InactiveUser`, `ValidationFailed` for an agent that the
        provider cannot dial, `Unavailable` or `ProviderError` if the provider takes no new calls, and for a DID what
        `dids.reserve` raises.
        """
        if order.did is None:
            provider = await self._choose_provider(None, order)
            values = _values(claims, order, provider, None)
            self._hints.send(_dial_task(await self._db.fetch_one(_CREATE_COMPILED, values), provider))
            return CreatedCall(values["call_id"])
        async with self._db.transaction() as session:
            reserved = await dids.reserve(session, claims.user_id, order.did)
            provider = await self._choose_provider(reserved.provider, order)
            values = _values(claims, order, provider, reserved)
            row = (await session.execute(_CREATE, values)).mappings().one_or_none()
            tasks.hint_after_commit(session, _dial_task(row, provider))
        return CreatedCall(values["call_id"], reserved.warning)

    async def _choose_provider(self, of_did: str | None, order: NewCall) -> str:
        """The name of the provider that will dial: the DID's, else the default."""
        name = of_did or (await self._directory.get_default()).name
        capabilities = await self._directory.get_capabilities(name)
        if isinstance(order.agent_number, Extension) and capabilities.extension_refusal is not None:
            refusal = f"{order.agent_number} is an extension of a PBX, and {capabilities.extension_refusal}"
            raise ValidationFailed(f"agent_number: {refusal}")
        return name


def _values(claims: Claims, order: NewCall, provider: str, reserved: dids.Reservation | None) -> dict[str, Any]:
    return {
        "provider": provider,
        "session_id": claims.session_id,
        "user_id": claims.user_id,
        "call_id": calls.new_call_id(),
        "customer_number": order.customer_number.digits,
        "agent_number": order.agent_number.digits,
        "did": digits_of(order.did or order.shown),
        "did_id": reserved.did_id if reserved else None,
        "callback_url": order.callback_url,
        "language": order.language,
        "transcript_id": transcripts.new_transcript_id(),
        "transcript_status": TranscriptStatus.PENDING if order.transcript else TranscriptStatus.DISABLED,
    }


def _dial_task(row: Mapping[Any, Any] | None, provider: str) -> tasks.AddedTask:
    """The call's dial task, from the row that `_CREATE` returns."""
    if row is None:
        raise InvalidToken
    if not row["is_active"]:
        raise InactiveUser
    if row["task_id"] is None:
        raise Unavailable(
            f"The telephony provider {provider} takes no new calls. Its operator can change that: `ringback providers "
            f"resume {provider}`, or make another one the default",
            retry_after=_RETRY_AFTER_SECONDS,
        )
    return tasks.AddedTask(row["task_id"], Queue.CALLS, tasks.dial_lane(provider))


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
        id=calls.new_call_id(),
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
    return call
