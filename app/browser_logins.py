"""Logins of browsers. A cookie holds a random token, of which the database has the hash.

They are rows of the same table as the logins of clients, so they end with them: by a new password, by deactivating the
user, and by logging out everywhere. A browser's cookie is no token of the API, and no token of the API is a cookie.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import accounts
from app.db import Database
from app.models import LoginSession, User
from app.security import Claims
from app.throttle import LoginThrottle

IDLE_SECONDS = 12 * 3600
"""A browser that asks for nothing for this long is logged out."""
LONGEST_SECONDS = 30 * 86400
NUMBERS_SECONDS = 15 * 60
"""How long whole numbers are shown once they were asked for."""

_RENEWED_SECONDS = 600  # an open console does not write at each look
_VALID = (
    LoginSession.revoked_at.is_(None),
    LoginSession.expires_at > func.now(),
    User.is_active,
    User.is_verified,
)
_SHOWS_NUMBERS = func.coalesce(LoginSession.numbers_until > func.now(), False).label("shows_numbers")


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """A valid login of a browser."""

    claims: Claims
    email: str
    is_operator: bool
    shows_numbers: bool

    @property
    def sight(self) -> "Sight":
        """What it may see."""
        return Sight(self.is_operator, self.shows_numbers)


async def log_in(
    db: Database, throttle: LoginThrottle, *, email: str, password: str, address: str | None
) -> tuple[str, str]:
    """Log a browser in. Returns the cookie's token and the user's e-mail address. Raises what
    `accounts.check_password` raises."""
    user = await accounts.check_password(db, throttle, email=email, password=password, address=address)
    token = secrets.token_urlsafe(32)
    await accounts.add_login(db, user, uuid4(), seconds=IDLE_SECONDS, cookie_sha256=_hash(token))
    await throttle.record_success(user.account, address)
    return token, user.email


async def find(session: AsyncSession, token: str) -> BrowserLogin | None:
    """The login of this cookie. None if it has ended. Using it prolongs it."""
    query = (
        select(
            LoginSession.id,
            LoginSession.created_at,
            LoginSession.expires_at,
            _SHOWS_NUMBERS,
            func.now().label("now"),
            User.id.label("user_id"),
            User.email,
            User.is_operator,
        )
        .join(User, User.id == LoginSession.user_id)
        .where(LoginSession.cookie_sha256 == _hash(token), *_VALID)
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        return None
    expires_at = _renewed(row.now, row.created_at)
    if (expires_at - row.expires_at).total_seconds() > _RENEWED_SECONDS:
        await session.execute(update(LoginSession).where(LoginSession.id == row.id).values(expires_at=expires_at))
    claims = Claims(row.user_id, row.id, row.expires_at)
    return BrowserLogin(claims, row.email, row.is_operator, row.shows_numbers)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a login may see at the moment."""

    is_operator: bool
    shows_numbers: bool


async def read_sights(session: AsyncSession, session_ids: Sequence[UUID]) -> dict[UUID, Sight]:
    """What each of these logins may see, without those that have ended."""
    query = (
        select(LoginSession.id, User.is_operator, _SHOWS_NUMBERS)
        .join(User, User.id == LoginSession.user_id)
        .where(LoginSession.id.in_(session_ids), *_VALID)
    )
    return {row.id: Sight(row.is_operator, row.shows_numbers) for row in await session.execute(query)}


def _renewed(now: datetime, created_at: datetime) -> datetime:
    return min(now + timedelta(seconds=IDLE_SECONDS), created_at + timedelta(seconds=LONGEST_SECONDS))


async def log_out(session: AsyncSession, login: BrowserLogin) -> None:
    """End this login."""
    await session.execute(
        update(LoginSession).where(LoginSession.id == login.claims.session_id).values(revoked_at=func.now())
    )


async def show_numbers(session: AsyncSession, login: BrowserLogin, *, shown: bool) -> None:
    """Show this browser whole numbers for a while, or no more."""
    until = func.now() + timedelta(seconds=NUMBERS_SECONDS) if shown else None
    await session.execute(
        update(LoginSession).where(LoginSession.id == login.claims.session_id).values(numbers_until=until)
    )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
