"""The tables of the engine: what there is to do, who does it, and what dials.

tasks      work to be done for a call; the change that completes it deletes the row
turns      when each user last had a turn, in a lane of tasks
workers    one row per worker process: its heartbeat
providers  the telephony providers; each call names one
listeners  one row per telephony provider: the worker that listens to it
"""

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Float, ForeignKey, Identity, Index, Integer, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models import Base, one_of


class TaskKind(StrEnum):
    DIAL = "dial"
    CONNECT = "connect"
    TRACK = "track"
    HANGUP = "hangup"
    FETCH_RECORDING = "fetch_recording"
    TRANSCRIBE = "transcribe"
    DELIVER = "deliver"


class Queue(StrEnum):
    """Tasks that must not wait for others. Recognition uses the CPU, and a receiver of callbacks may be slow."""

    CALLS = "calls"
    CALLBACKS = "callbacks"
    TRANSCRIPTS = "transcripts"


class Priority(IntEnum):
    """Which of a user's tasks of one lane goes first."""

    FRESH = 0
    """Somebody waits for it."""
    REPORTED = 1
    """The recording of a call that another system reported. They often come in bulk, long after the call."""
    AGAIN = 2
    """A transcript that is made again."""


class Task(Base):
    """Work to be done for a call. See `app.tasks`."""

    __tablename__ = "tasks"
    __table_args__ = (
        one_of("kind", TaskKind),
        one_of("queue", Queue),
        Index("ix_tasks_queue_due", "queue", "due_at"),
        Index("ix_tasks_call", "call_id"),
        Index("ix_tasks_lane", "lane", "user_id", "priority", "due_at", postgresql_where=text("lane IS NOT NULL")),
        # A call has at most one task of these kinds. So its callbacks are sent in order, and nothing is fetched twice.
        Index(
            "uq_tasks_one",
            "call_id",
            "kind",
            unique=True,
            postgresql_where=text("kind IN ('track', 'fetch_recording', 'transcribe', 'deliver')"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]
    queue: Mapped[str]
    call_id: Mapped[str] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"))
    lane: Mapped[str | None] = mapped_column(doc="Tasks in which users take turns. See `app.lanes`")
    user_id: Mapped[str | None] = mapped_column(doc="The call's user, of a task in a lane")
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("0"), doc="A `Priority`, among the user's tasks of the lane"
    )
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LaneTurn(Base):
    """When a task of this user was last claimed in this lane."""

    __tablename__ = "turns"

    lane: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    claimed_at: Mapped[datetime]


class Worker(Base):
    __tablename__ = "workers"
    __table_args__ = (one_of("queue", Queue),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    queue: Mapped[str]
    host: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ProviderRow(Base):
    """A telephony provider. See `app.telephony_providers`."""

    __tablename__ = "providers"
    __table_args__ = (Index("uq_providers_default", "is_default", unique=True, postgresql_where=text("is_default")),)

    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str | None] = mapped_column(doc="The adapter; None: environment variables configure it")
    options: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    secrets: Mapped[str | None] = mapped_column(doc="The secret options as JSON, encrypted")
    is_default: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    drained_at: Mapped[datetime | None] = mapped_column(doc="Since when it takes no new calls")
    calls_at_once: Mapped[int | None] = mapped_column(Integer, doc="At most so many calls are up; None: no limit")
    pace_calls: Mapped[int | None] = mapped_column(Integer, doc="At most so many calls are dialed in `pace_seconds`")
    pace_seconds: Mapped[float | None] = mapped_column(Float)
    next_dial_at: Mapped[datetime | None] = mapped_column(doc="When the pace allows the next dial; None: now")
    version: Mapped[int] = mapped_column(
        Integer, server_default=text("1"), doc="Changes with the options, so that workers load them anew"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ListenerRow(Base):
    """The worker that listens to a provider's events, or watches a provider without a stream. It holds a lease, as a
    task's worker does."""

    __tablename__ = "listeners"

    provider: Mapped[str] = mapped_column(primary_key=True)
    worker_id: Mapped[UUID]
    lease_until: Mapped[datetime]
    connected_since: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(doc="Why it is not connected, for a person")
