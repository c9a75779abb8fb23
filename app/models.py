"""Every table, on one page.

users ─┬─ login_sessions
       └─ calls ─┬─ call_events   what happened, one row each, in order
                 ├─ transcripts   one per call
                 ├─ recordings    at most one per call
                 └─ tasks         work still to be done; a row is deleted with the change that completes it
workers                           one row per worker process: its heartbeat
listeners                         one row per telephony provider that has a stream: who listens, and how it goes

States are text with a check, so that adding one is a plain migration. All instants are UTC.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
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


class TaskKind(StrEnum):
    DIAL = "dial"
    CONNECT = "connect"
    TRACK = "track"
    HANGUP = "hangup"
    FETCH_RECORDING = "fetch_recording"
    TRANSCRIBE = "transcribe"


class Queue(StrEnum):
    """A kind of worker. Recognition is CPU-bound and must never delay a dial, so it has its own."""

    CALLS = "calls"
    TRANSCRIPTS = "transcripts"


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
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
    email: Mapped[str] = mapped_column(doc="As given; unique without regard to case")
    password_hash: Mapped[str]
    is_active: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    is_verified: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LoginSession(Base):
    """One login. Its access and refresh tokens die with it."""

    __tablename__ = "login_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]


class Call(Base):
    __tablename__ = "calls"
    __table_args__ = (
        _one_of("status", CallStatus),
        Index("ix_calls_user_newest", "user_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[str] = mapped_column(primary_key=True, doc="call_ and 16 of [0-9a-z]")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    customer_number: Mapped[str] = mapped_column(doc="Digits")
    agent_number: Mapped[str] = mapped_column(doc="Digits")
    did: Mapped[str | None] = mapped_column(doc="The number both are shown, as digits; None: the server's")
    language: Mapped[str | None] = mapped_column(doc="Asked for; None: the server's default")
    status: Mapped[str] = mapped_column(server_default=CallStatus.QUEUED)
    dial_token: Mapped[UUID | None] = mapped_column(doc="The right to dial: set once, before the request leaves")
    customer_dialed_at: Mapped[datetime | None] = mapped_column(
        doc="The right to dial the customer, where the provider waits for it: set once, before the request leaves"
    )
    provider_reference: Mapped[str | None]
    hangup_cause: Mapped[str | None]
    ended_by: Mapped[str | None]
    failure: Mapped[str | None] = mapped_column(doc="Why it failed, for a person")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dialed_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None] = mapped_column(doc="The customer's answer: both are joined")
    ended_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(doc="When a live call is given up")


class CallEventRow(Base):
    __tablename__ = "call_events"
    __table_args__ = (UniqueConstraint("call_id", "key"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(doc="Unique in its call: a report that comes twice changes nothing")
    status: Mapped[str]
    leg: Mapped[str | None]
    hangup_cause: Mapped[str | None]
    detail: Mapped[str | None]
    happened_at: Mapped[datetime] = mapped_column(doc="By the provider's clock")
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Recording(Base):
    __tablename__ = "recordings"

    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    storage_key: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Transcript(Base):
    __tablename__ = "transcripts"
    __table_args__ = (_one_of("status", TranscriptStatus),)

    id: Mapped[str] = mapped_column(primary_key=True, doc="24 lower-case hex digits")
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), unique=True)
    status: Mapped[str] = mapped_column(server_default=TranscriptStatus.PENDING)
    failure: Mapped[str | None] = mapped_column(doc="Why it failed, for a person")
    summary: Mapped[str | None]
    outcome: Mapped[str | None]
    history: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB, doc="Turns in time order")
    language: Mapped[str | None]
    engine: Mapped[str | None] = mapped_column(doc="What recognized and summarized it")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Task(Base):
    """A piece of work owed to a call. See `app.tasks` for its life."""

    __tablename__ = "tasks"
    __table_args__ = (
        _one_of("kind", TaskKind),
        _one_of("queue", Queue),
        Index("ix_tasks_queue_due", "queue", "due_at"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]
    queue: Mapped[str]
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    __tablename__ = "workers"
    __table_args__ = (_one_of("queue", Queue),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    queue: Mapped[str]
    host: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Listener(Base):
    """Who listens to a provider's events. A lease, like a task's: whoever is silent for too long loses it."""

    __tablename__ = "listeners"

    provider: Mapped[str] = mapped_column(primary_key=True)
    worker_id: Mapped[UUID]
    lease_until: Mapped[datetime]
    connected_since: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(doc="Why it is not connected, for a person")
