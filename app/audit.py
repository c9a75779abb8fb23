"""Who did what: one line for each change that a person makes in the console, and each look at another user's calls.

So do the commands that change what may be called, by whom and through what.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import structlog
from sqlalchemy import Identity, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.models import Base

log = structlog.get_logger()


class AuditLine(Base):
    """Who did what. Lines are only added. They outlast the users and the calls that they name."""

    __tablename__ = "audit_lines"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str] = mapped_column(doc="E-mail address")
    action: Mapped[str] = mapped_column(doc="An `AuditAction`")
    subject: Mapped[str | None] = mapped_column(doc="The call, number, callback or user that it is about")
    owner: Mapped[str | None] = mapped_column(doc="The id of the user whose it is")
    detail: Mapped[str | None]
    address: Mapped[str | None] = mapped_column(doc="The browser's address")


class AuditAction(StrEnum):
    """What was done, in words that end a sentence which begins with who."""

    SIGNED_IN = "signed in"
    SIGNED_OUT_EVERYWHERE = "signed out everywhere"
    SHOWED_NUMBERS = "showed whole numbers"
    HID_NUMBERS = "hid numbers"
    LOOKED_AT_CALLS = "looked at the calls of all users"
    LOOKED_AT_CALL = "looked at a call"
    PLAYED_RECORDING = "played a recording"
    EXPORTED_CALLS = "exported calls"
    PLACED_CALL = "placed a call"
    CANCELED_CALL = "canceled a call"
    RETRIED_TRANSCRIPT = "had a call transcribed again"
    REPLAYED_CALLBACK = "replayed a callback"
    REPLAYED_CALLBACKS = "replayed all failed callbacks"
    ALLOCATED_CHANNELS = "allocated channels"
    LABELED_NUMBER = "labeled a number"
    CHECKED_PROVIDER = "checked a provider"
    ACTIVATED_USER = "activated a user"
    DEACTIVATED_USER = "deactivated a user"
    LOGGED_OUT_USER = "logged a user out everywhere"
    CHANGED_RULES = "changed the rules of calls"
    CHANGED_DO_NOT_CALL = "changed the do-not-call list"
    CHANGED_OUTCOMES = "changed the outcomes of transcripts"
    CHANGED_PROVIDER = "changed a telephony provider"
    CHANGED_USER = "changed a user"
    RESTORED_BACKUP = "restored a backup"
    SETTLED = "ended everything that was pending"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it, and from where."""

    email: str
    address: str | None


async def add(
    session: AsyncSession,
    actor: Actor,
    action: AuditAction,
    *,
    subject: str | None = None,
    owner: str | None = None,
    detail: str | None = None,
) -> None:
    """Add a line. It is written in the transaction of what it is about, so that nothing happens without it."""
    session.add(
        AuditLine(actor=actor.email, action=action, subject=subject, owner=owner, detail=detail, address=actor.address)
    )
    await session.flush()
    log.info("audit", actor=actor.email, action=str(action), subject=subject, owner=owner, detail=detail)


async def list_lines(session: AsyncSession, *, limit: int) -> list[AuditLine]:
    """The newest lines."""
    return list(await session.scalars(select(AuditLine).order_by(AuditLine.id.desc()).limit(limit)))
