"""Users and their logins."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Text, delete, func, insert, literal, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app import callbacks, security
from app.db import Database
from app.errors import (
    AlreadyExists,
    InactiveUser,
    InvalidCredentials,
    InvalidRequest,
    InvalidToken,
    MissingAuth,
    SessionEnded,
    UnverifiedUser,
)
from app.models import ApiKey, LoginSession, User
from app.security import Claims, Tokens
from app.throttle import LoginThrottle

log = structlog.get_logger()

_KEY_NAME_LENGTH = 12
_LONGEST_EMAIL = 320  # 64 before the @, 255 after it


@dataclass(frozen=True, slots=True)
class TokenPair:
    access_token: str
    refresh_token: str


async def create_user(
    session: AsyncSession, email: str, password: str, *, active: bool = True, verified: bool = True
) -> User:
    """Create a user. The caller commits.

    Raises `AlreadyExists`, and `InvalidRequest` for an e-mail address or password that is not valid.
    """
    email = email.strip()
    local, _, domain = email.rpartition("@")
    if not _storable(email) or not local or not domain or len(email) > _LONGEST_EMAIL or " " in email:
        raise InvalidRequest("email: must be an address like name@example.com")
    user = User(
        id=f"USR_{secrets.token_hex(4).upper()}",
        email=email,
        password_hash=await _new_hash(password),
        is_active=active,
        is_verified=verified,
    )
    session.add(user)
    try:
        await session.flush()
    except IntegrityError as error:
        raise AlreadyExists(f"There is a user {email} already") from error
    await session.refresh(user)
    await callbacks.create_secret(session, user.id)
    return user


async def find_user(session: AsyncSession, email: str) -> User | None:
    """The user with this e-mail address, in upper or lower case."""
    if not _storable(email):
        return None
    return (
        await session.scalars(select(User).where(func.lower(User.email) == func.lower(email.strip())))
    ).one_or_none()


async def list_users(session: AsyncSession) -> list[User]:
    """All users, oldest first."""
    return list(await session.scalars(select(User).order_by(User.created_at, User.id)))


async def is_anybody_there(session: AsyncSession) -> bool:
    """Whether there is any user."""
    return await session.scalar(select(User.id).limit(1)) is not None


async def count_logins(session: AsyncSession, user_id: str) -> int:
    """How many logins of the user are valid, of browsers and of clients."""
    valid = (LoginSession.user_id == user_id, LoginSession.revoked_at.is_(None), LoginSession.expires_at > func.now())
    return await session.scalar(select(func.count()).select_from(LoginSession).where(*valid)) or 0


async def set_password(session: AsyncSession, user: User, password: str) -> None:
    """Set a new password, and end every login that was made with the old one. Raises `InvalidRequest`."""
    user.password_hash = await _new_hash(password)
    await log_out_everywhere(session, user)


async def set_active(session: AsyncSession, user: User, active: bool) -> None:
    """Set whether the user is active. The logins of an inactive user end, and do not return with the user."""
    user.is_active = active
    if not active:
        await log_out_everywhere(session, user)


async def set_operator(session: AsyncSession, user: User, is_operator: bool) -> None:
    """Set whether the user sees the installation and every user's calls in the console."""
    user.is_operator = is_operator
    await session.flush()


async def log_out_everywhere(session: AsyncSession, user: User) -> int:
    """End all logins of the user, with their tokens. Returns how many there were."""
    ended = await session.execute(
        update(LoginSession)
        .where(
            LoginSession.user_id == user.id,
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > func.now(),
        )
        .values(revoked_at=func.now())
        .returning(LoginSession.id)
    )
    return len(ended.all())


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A user whose password was right. `account` is the name that the throttle has."""

    id: str
    email: str
    account: str
    password_hash: str


async def check_password(
    db: Database, throttle: LoginThrottle, *, email: str, password: str, address: str | None
) -> VerifiedUser:
    """The user with this password.

    An unknown e-mail address and a wrong password get the same answer after the same time. Raises `InvalidCredentials`,
    `InactiveUser`, `UnverifiedUser`, `TooManyAttempts`.
    """
    account = email.strip().lower() if _storable(email) else ""
    known = await throttle.check(account, address)
    async with db.statement() as connection:
        row = (
            await connection.execute(
                select(User.id, User.email, User.password_hash, User.is_active, User.is_verified).where(
                    func.lower(User.email) == func.lower(account)
                )
            )
        ).one_or_none()
    right = await security.verify_password(password, row.password_hash if row else None, known=known)
    if row is None or not right:
        await throttle.record_failure(account, address)
        raise InvalidCredentials
    if not row.is_active:
        raise InactiveUser
    if not row.is_verified:
        raise UnverifiedUser
    return VerifiedUser(row.id, row.email, account, row.password_hash)


async def add_login(
    db: Database, user: VerifiedUser, session_id: UUID, *, seconds: int, cookie_sha256: str | None = None
) -> None:
    """Add a login of this user. Raises `InvalidCredentials` if the password has just changed."""
    # The statement selects from the user, because the password may change while it is being hashed. A login with the
    # old password must not remain.
    login = insert(LoginSession).from_select(
        ["id", "user_id", "expires_at", "cookie_sha256"],
        select(
            literal(session_id), User.id, func.now() + timedelta(seconds=seconds), literal(cookie_sha256, Text)
        ).where(User.id == user.id, User.is_active, User.password_hash == user.password_hash),
    )
    async with db.statement() as connection:
        logged_in = (await connection.execute(login)).rowcount
    if not logged_in:
        raise InvalidCredentials
    log.info("logged_in", user_id=user.id, session_id=str(session_id))


async def log_in(
    db: Database,
    tokens: Tokens,
    throttle: LoginThrottle,
    *,
    email: str,
    password: str,
    address: str | None,
    session_seconds: int,
) -> TokenPair:
    """Log in. The user's other logins stay. Raises what `check_password` raises."""
    user = await check_password(db, throttle, email=email, password=password, address=address)
    session_id = uuid4()
    await add_login(db, user, session_id, seconds=session_seconds)
    await throttle.record_success(user.account, address)
    return TokenPair(tokens.issue("access", user.id, session_id), tokens.issue("refresh", user.id, session_id))


async def open_login(session: AsyncSession, user: User, *, seconds: int) -> Claims:
    """Create a login without a password, for the operator of the server. The caller commits."""
    login = LoginSession(id=uuid4(), user_id=user.id, expires_at=datetime.now(UTC) + timedelta(seconds=seconds))
    session.add(login)
    await session.flush()
    return Claims(user.id, login.id, login.expires_at)


async def refresh(db: Database, tokens: Tokens, refresh_token: str) -> TokenPair:
    """Issue a new access token for the same login. The refresh token stays valid.

    Raises `InvalidRefreshToken`, `SessionEnded`, `InactiveUser`.
    """
    claims = tokens.read_refresh(refresh_token)
    await _check_login(db, claims, if_ended=SessionEnded())
    return TokenPair(tokens.issue("access", claims.user_id, claims.session_id), refresh_token)


async def check_login(db: Database, claims: Claims) -> None:
    """Check that the token's login is still valid. Raises `InvalidToken`, `InactiveUser`."""
    await _check_login(db, claims, if_ended=InvalidToken())


_LOGIN = text("""
SELECT users.is_active, login_sessions.revoked_at IS NOT NULL OR login_sessions.expires_at <= now() AS ended
FROM login_sessions JOIN users ON users.id = login_sessions.user_id
WHERE login_sessions.id = :session_id AND users.id = :user_id
""")


async def _check_login(db: Database, claims: Claims, *, if_ended: InvalidToken | SessionEnded) -> None:
    async with db.statement() as connection:
        row = (
            await connection.execute(_LOGIN, {"session_id": claims.session_id, "user_id": claims.user_id})
        ).one_or_none()
    if row is None:
        raise if_ended
    if not row.is_active:
        raise InactiveUser
    if row.ended:
        raise if_ended


async def create_api_key(session: AsyncSession, user: User) -> str:
    """Create a key for call reports. The key is returned this once, because only its hash is stored."""
    key = f"rbk_{secrets.token_urlsafe(32)}"
    session.add(ApiKey(id=key[:_KEY_NAME_LENGTH], user_id=user.id, sha256=_key_hash(key)))
    await session.flush()
    return key


async def list_api_keys(session: AsyncSession) -> list[tuple[ApiKey, str]]:
    """All keys, each with the e-mail address of its user."""
    query = select(ApiKey, User.email).join(User, User.id == ApiKey.user_id).order_by(ApiKey.created_at)
    return [(row.ApiKey, row.email) for row in await session.execute(query)]


async def revoke_api_key(session: AsyncSession, name: str) -> bool:
    """End a key, named by its first characters. False if there is no such key."""
    return await session.scalar(delete(ApiKey).where(ApiKey.id == name).returning(ApiKey.id)) is not None


async def get_api_key_user(db: Database, key: str) -> str:
    """The id of the key's user. Raises `MissingAuth`, `InactiveUser`."""
    query = (
        select(User.id, User.is_active).join(ApiKey, ApiKey.user_id == User.id).where(ApiKey.sha256 == _key_hash(key))
    )
    async with db.statement() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise MissingAuth("Invalid auth credentials: there is no such API key")
    if not row.is_active:
        raise InactiveUser
    return str(row.id)


def _key_hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


async def _new_hash(password: str) -> str:
    if not password:
        raise InvalidRequest("password: must not be empty")
    try:
        return await security.hash_password(password)
    except security.PasswordRefused as error:
        raise InvalidRequest(f"password: {error}") from error


def _storable(email: str) -> bool:
    """Whether PostgreSQL can store this text: it accepts neither NUL nor half a surrogate pair."""
    try:
        return b"\0" not in email.encode()
    except UnicodeEncodeError:
        return False
