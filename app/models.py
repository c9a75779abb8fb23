"""The tables of accounts and calls.

users ─┬─ login_sessions
       ├─ webhook_secrets         sign callbacks; two of them while one is being replaced
       ├─ api_keys                for call reports
       ├─ call_rules, talk_usage, do_not_call, idempotency_keys    in `app.rule_models`
       ├─ vocabulary_terms, outcome_sets                           in `app.speech_models`
       ├─ dids                    rented numbers and their channels
       └─ calls ─┬─ call_events   what happened, one row per event
                 ├─ transcripts   one per call
                 ├─ recordings    at most one per call
                 ├─ deliveries    callbacks, one row per message; each has its delivery_attempts
                 └─ tasks         work to be done, in `app.engine_models`

audit_lines, in `app.audit`, refer to nothing, so that they outlast what they name.

States are text with a check constraint, so that adding one is a plain migration. All times are UTC.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.telephony.base import CallStatus


class TranscriptStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    DISABLED = "disabled"


class CallType(StrEnum):
    """The vendor's words."""

    CLICK_TO_CALL = "C2C"
    INBOUND = "inbound"


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """The constraint that the column holds one of these states."""
    listed = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, datetime: DateTime(timezone=True), int: BigInteger}  # noqa: RUF012


class User(Base):
    __tablename__ = "users"
    __table_args__ = (Index("uq_users_email_lower", func.lower(text("email")), unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True, doc="USR_ and 8 upper-case hex digits")
    email: Mapped[str] = mapped_column(doc="As given; unique in any case")
    password_hash: Mapped[str]
    is_active: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    is_verified: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    pool_channels: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), doc="Channels to divide among the user's DIDs"
    )
    is_operator: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), doc="Sees the installation and every user's calls in the console"
    )
    compat_callbacks: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), doc="Callbacks also have the keys and events that older clients read"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LoginSession(Base):
    """One login, of a client or of a browser. A client's access and refresh tokens end with it."""

    __tablename__ = "login_sessions"
    __table_args__ = (
        Index(
            "uq_login_sessions_cookie",
            "cookie_sha256",
            unique=True,
            postgresql_where=text("cookie_sha256 IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    cookie_sha256: Mapped[str | None] = mapped_column(doc="Of a browser's cookie; None: a client's login")
    numbers_until: Mapped[datetime | None] = mapped_column(doc="Until when the browser is shown whole numbers")


class WebhookSecret(Base):
    """As Standard Webhooks defines it. While one secret replaces another, both sign."""

    __tablename__ = "webhook_secrets"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    secret: Mapped[str] = mapped_column(doc="whsec_ and base64")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(doc="None: the newest")


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True, doc="The key's first characters, which name it")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(unique=True, doc="Of the key. It is random and long, so it needs no salt")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Did(Base):
    """A number that a user rents. Its channels in use are counted from the live calls, and never stored."""

    __tablename__ = "dids"
    __table_args__ = (
        CheckConstraint("allocated_channels BETWEEN 0 AND max_channels", name="allocated_channels"),
        Index("ix_dids_user", "user_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, doc="PN_ and 10 digits")
    number: Mapped[str] = mapped_column(unique=True, doc="E.164 digits")
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    label: Mapped[str | None] = mapped_column(doc="What its user calls it")
    max_channels: Mapped[int] = mapped_column(Integer)
    allocated_channels: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    expired_at: Mapped[datetime | None]
    inbound_callback_url: Mapped[str | None]
    inbound_transcript: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    provider: Mapped[str | None] = mapped_column(
        ForeignKey("providers.name"), doc="What dials calls of this number; None: the default provider"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Call(Base):
    __tablename__ = "calls"
    __table_args__ = (
        one_of("status", CallStatus),
        one_of("call_type", CallType),
        # The index includes what lists are filtered by, so that filtering reads no rows of other calls.
        Index(
            "ix_calls_user_newest",
            "user_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_include=["status", "call_type", "customer_number", "agent_number", "did"],
        ),
        # Counts a user's calls in a twentieth of the pages.
        Index("ix_calls_user_status", "user_id", "status"),
        # The newest calls of all users.
        Index("ix_calls_newest", text("created_at DESC"), text("id DESC")),
        # Finds a customer by the last digits.
        Index(
            "ix_calls_customer_end",
            func.reverse(text("customer_number")).label("ending"),
            postgresql_ops={"ending": "text_pattern_ops"},
        ),
        # Finds the call that a report describes.
        Index(
            "ix_calls_reported",
            "user_id",
            "customer_number",
            text("created_at DESC"),
            postgresql_where=text("only_reported"),
        ),
        # Counts a user's live calls, and the channels in use by number.
        Index("ix_calls_live", "user_id", "did_id", postgresql_where=text("ended_at IS NULL")),
        # Counts the calls that are up at a provider.
        Index("ix_calls_up", "provider", postgresql_where=text("ended_at IS NULL AND dialed_at IS NOT NULL")),
        # Finds what retention deletes, as `ix_recordings_oldest` and `ix_transcripts_made` do.
        Index("ix_calls_recording_url", "ended_at", "id", postgresql_where=text("recording_url IS NOT NULL")),
        # No two calls are the same call of their provider.
        Index(
            "uq_calls_provider_reference",
            "provider",
            "provider_reference",
            unique=True,
            postgresql_where=text("provider_reference IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, doc="call_ and 16 of [0-9a-z]")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    customer_number: Mapped[str] = mapped_column(doc="E.164 digits, as all numbers here")
    agent_number: Mapped[str | None] = mapped_column(
        doc="2 to 7 digits: an extension; None: an inbound call, unanswered"
    )
    did: Mapped[str | None] = mapped_column(doc="The number that both people are shown; None: the server's")
    did_id: Mapped[str | None] = mapped_column(ForeignKey("dids.id"))
    language: Mapped[str | None] = mapped_column(doc="As ordered; None: the server's default")
    callback_url: Mapped[str | None]
    call_type: Mapped[str] = mapped_column(server_default=CallType.CLICK_TO_CALL)
    only_reported: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), doc="Another system has the call, and our provider does not know it"
    )
    reported_date: Mapped[str | None] = mapped_column(
        doc="Of its first report; it identifies the call (`report_fields`)"
    )
    reported_seconds: Mapped[int | None] = mapped_column(Integer, doc="Length of the call, from a report")
    reported_talk_seconds: Mapped[int | None] = mapped_column(
        Integer, doc="Length from the answer, from a report or a provider that counts it"
    )
    recording_url: Mapped[str | None] = mapped_column(doc="The URL of the recording, if a report named one")
    status: Mapped[str] = mapped_column(server_default=CallStatus.QUEUED)
    provider: Mapped[str] = mapped_column(
        server_default=text("'environment'"), doc="What dials it. Fixed when the call is created"
    )
    record: Mapped[bool] = mapped_column(Boolean, server_default=text("true"), doc="Whether it may be recorded")
    waits_for_hours: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), doc="Outside calling hours it waits, and does not end"
    )
    dial_after: Mapped[datetime | None] = mapped_column(doc="When calling hours begin that it waits for")
    dial_token: Mapped[UUID | None] = mapped_column(doc="The dial attempt: set once, before the request leaves")
    customer_dialed_at: Mapped[datetime | None] = mapped_column(doc="As `dial_token`, if the customer is dialed alone")
    provider_reference: Mapped[str | None]
    hangup_cause: Mapped[str | None]
    ended_by: Mapped[str | None]
    failure: Mapped[str | None] = mapped_column(doc="Why it failed, for a person")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dialed_at: Mapped[datetime | None]
    rang_at: Mapped[datetime | None] = mapped_column(doc="When the first telephone rang")
    agent_answered_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None] = mapped_column(doc="When the customer answered")
    ended_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(doc="When a live call times out")
    traceparent: Mapped[str | None] = mapped_column(doc="As its client sent it, if calls are traced; see `app.tracing`")


class CallEventRow(Base):
    __tablename__ = "call_events"
    __table_args__ = (UniqueConstraint("call_id", "key"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(doc="Unique in its call, so that an event counts once")
    status: Mapped[str]
    leg: Mapped[str | None]
    hangup_cause: Mapped[str | None]
    detail: Mapped[str | None]
    happened_at: Mapped[datetime] = mapped_column(doc="By the provider's clock")
    late: Mapped[bool] = mapped_column(
        Boolean, server_default=text("false"), doc="It was noticed late, and happened before `happened_at`"
    )
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RecordingRow(Base):
    __tablename__ = "recordings"
    __table_args__ = (Index("ix_recordings_oldest", "created_at", "call_id"),)

    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    storage_key: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    agent_channel: Mapped[int] = mapped_column(Integer, server_default=text("1"), doc="Of two channels: 1 or 2")
    peaks: Mapped[bytes | None] = mapped_column(LargeBinary, doc="As `app.waveforms` makes them; None: nobody looked")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


WORDS = "jsonb_to_tsvector('simple'::regconfig, history, '[\"string\"]'::jsonb)"
"""The words of a transcript, for a search. The configuration `simple` takes words as they are, in any language."""


class TranscriptRow(Base):
    __tablename__ = "transcripts"
    __table_args__ = (
        one_of("status", TranscriptStatus),
        # Counts a list that is filtered by transcript, without reading the tables.
        Index("ix_transcripts_user_status", "user_id", "status", postgresql_include=["call_id"]),
        # Counts the outcomes of a day. A transcript is created with its call.
        Index("ix_transcripts_newest", text("created_at DESC"), postgresql_include=["user_id", "status", "outcome"]),
        Index(
            "ix_transcripts_outcome", "outcome", text("created_at DESC"), postgresql_where=text("outcome IS NOT NULL")
        ),
        Index("ix_transcripts_made", "created_at", "call_id", postgresql_where=text("history IS NOT NULL")),
        # Finds words said.
        Index(
            "ix_transcripts_words",
            text(WORDS),
            postgresql_using="gin",
            postgresql_where=text("history IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, doc="24 lower-case hex digits")
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), doc="The call's user")
    status: Mapped[str] = mapped_column(server_default=TranscriptStatus.PENDING)
    failure: Mapped[str | None] = mapped_column(doc="Why it failed, for a person")
    summary: Mapped[str | None]
    outcome: Mapped[str | None]
    history: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True), doc="Turns in time order")
    certainty: Mapped[float | None] = mapped_column(doc="How sure the outcome is, 0 to 1")
    detail: Mapped[str | None] = mapped_column(doc="A finer outcome, one of `app.transcription.outcome.DETAILS`")
    fields: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), doc="The user's own, by name")
    language: Mapped[str | None]
    engine: Mapped[str | None] = mapped_column(doc="What recognized and summarized it")
    round: Mapped[int] = mapped_column(Integer, server_default=text("0"), doc="How often it was opened again")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base):
    """One callback: its message, its attempts and its status. See `app.callbacks`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        one_of("status", DeliveryStatus),
        UniqueConstraint("call_id", "event", "round"),
        Index("ix_deliveries_pending", "call_id", "id", postgresql_where=text("status = 'pending'")),
        Index("ix_deliveries_user_newest", "user_id", text("id DESC")),
        Index("ix_deliveries_unsent", "status", text("id DESC"), postgresql_where=text("status <> 'delivered'")),
        Index("ix_deliveries_failed", "user_id", text("id DESC"), postgresql_where=text("status = 'failed'")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True, doc="In the order of the events")
    message_id: Mapped[str] = mapped_column(unique=True, doc="The webhook-id: msg_ and 24 hex digits")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    event: Mapped[str]
    round: Mapped[int] = mapped_column(
        Integer, doc="The transcript's round, so that a new transcript is notified again"
    )
    url: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSON, doc="JSON, because JSONB does not keep the order of keys")
    status: Mapped[str] = mapped_column(server_default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_answer: Mapped[str | None] = mapped_column(doc="For a person: the receiver's answer, or why there is none")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    began_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When its schedule began: when it was written or replayed"
    )
    ended_at: Mapped[datetime | None]


class DeliveryAttempt(Base):
    """One attempt to send a callback."""

    __tablename__ = "delivery_attempts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"), index=True)
    succeeded: Mapped[bool] = mapped_column(Boolean)
    answer: Mapped[str] = mapped_column(doc="For a person: the receiver's answer, or why there is none")
    milliseconds: Mapped[int] = mapped_column(Integer, doc="How long it took")
    ended_at: Mapped[datetime] = mapped_column(server_default=func.now())
