"""The tables of what may be ordered: rules, usage, numbers that must not be called, keys of orders,
and which outcomes a user wants."""

from datetime import datetime

from sqlalchemy import Boolean, ForeignKey, Identity, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models import Base


class CallRulesRow(Base):
    """What a user may order, or all users together. None restricts nothing. See `app.call_rules`."""

    __tablename__ = "call_rules"
    __table_args__ = (
        Index(
            "uq_call_rules_installation",
            text("(user_id IS NULL)"),
            unique=True,
            postgresql_where=text("user_id IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    calls_at_once: Mapped[int | None] = mapped_column(Integer)
    calls_per_minute: Mapped[int | None] = mapped_column(Integer)
    calls_per_day: Mapped[int | None] = mapped_column(Integer)
    talk_minutes_per_day: Mapped[int | None] = mapped_column(Integer)
    talk_minutes_per_month: Mapped[int | None] = mapped_column(Integer)
    destinations: Mapped[str | None] = mapped_column(doc="As `app.destinations` reads them")
    hours: Mapped[str | None] = mapped_column(doc="As `app.calling_hours` reads them")
    record: Mapped[bool | None] = mapped_column(Boolean, doc="False: no call is recorded")


class TalkUsage(Base):
    """How long the user's calls talked that ended in this quarter of an hour. No time zone is finer than that, so this
    adds up to days and months in any."""

    __tablename__ = "talk_usage"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    began_at: Mapped[datetime] = mapped_column(primary_key=True)
    seconds: Mapped[int] = mapped_column(Integer)


class DoNotCall(Base):
    """A number that must not be called."""

    __tablename__ = "do_not_call"
    __table_args__ = (
        Index("uq_do_not_call", "number", text("coalesce(user_id, '')"), unique=True),
        Index("ix_do_not_call_user", "user_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    number: Mapped[str] = mapped_column(doc="E.164 digits")
    user_id: Mapped[str | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), doc="Whose calls it concerns; None: everybody's"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IdempotencyKey(Base):
    """A key that a client sent with an order, and the call that the order created."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    call_id: Mapped[str]
    warning: Mapped[str | None] = mapped_column(doc="As the first answer had it")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
