"""Passwords, tokens, encryption and signed links. The only module that uses passlib, python-jose and cryptography.

Tokens are JWTs with HS256. A valid token proves who logged in. Whether the login is still valid is checked in the
database, by the statement that its user runs anyway.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any, Literal, TypeVar
from uuid import UUID

from cachetools import TTLCache
from cryptography.fernet import Fernet
from cryptography.fernet import InvalidToken as NotDecryptable
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jose import jwt
from passlib.hash import argon2

from app.errors import InvalidRefreshToken, InvalidToken, SessionEnded

TokenKind = Literal["access", "refresh"]
T = TypeVar("T")

_ISSUER = "ringback"
_ALGORITHM = "HS256"
# python-jose accepts a token that lacks a claim, unless the claim is required.
_REQUIRED = {
    "require_exp": True,
    "require_iat": True,
    "require_aud": True,
    "require_iss": True,
    "require_sub": True,
}
_USER_ID = re.compile(r"USR_[0-9A-F]{8}")
_MAX_TOKEN_BYTES = 1024  # ours have about 350; python-jose recurses into a nested header before it checks anything
MAX_PASSWORD_BYTES = 1024

# 19 MiB, 2 passes, 1 lane (OWASP): 30 to 40 ms. The library's default takes ten times as long, and a few logins per
# second would use the whole machine.
_argon2 = argon2.using(type="ID", memory_cost=19 * 1024, time_cost=2, parallelism=1)  # type: ignore[no-untyped-call]


class _Hashing:
    """Hashes one password at a time, in its own thread. While others wait, it rests as long as each hash took.

    So many logins at once queue here. Polls keep the CPU, and the memory bandwidth that argon2 uses
    (docs/benchmarks.md). Known addresses go before unknown ones.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
        self._is_busy = False
        self._known: deque[asyncio.Future[None]] = deque()
        self._unknown: deque[asyncio.Future[None]] = deque()

    async def run(self, work: Callable[..., T], *arguments: object, known: bool = False) -> T:
        await self._wait_for_turn(self._known if known else self._unknown)
        try:
            began = perf_counter()
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
            if self._known or self._unknown:
                await asyncio.sleep(perf_counter() - began)
            return result
        finally:
            self._give_turn()

    async def _wait_for_turn(self, line: "deque[asyncio.Future[None]]") -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in line:
                line.remove(turn)
            else:  # the turn came at this moment
                self._give_turn()
            raise

    def _give_turn(self) -> None:
        """Wake the next waiter. `_is_busy` stays set, so that no new request goes first."""
        for line in (self._known, self._unknown):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_busy = False


_hashing = _Hashing()

# Verified when there is no such user, so that both answers take the same time.
_DUMMY_HASH = _argon2.hash(secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Claims:
    """The user and the login that a token stands for."""

    user_id: str
    session_id: UUID
    expires_at: datetime


class PasswordRefused(ValueError):
    """This text cannot be a password. The message says why."""


def check_password_form(password: str) -> bytes:
    """The password as bytes. Raises `PasswordRefused` for what must not be hashed."""
    try:
        encoded = password.encode()
    except UnicodeEncodeError:
        raise PasswordRefused("The password has characters that are no valid text") from None
    if len(encoded) > MAX_PASSWORD_BYTES:
        raise PasswordRefused(f"The password is longer than {MAX_PASSWORD_BYTES} bytes")
    if b"\0" in encoded:
        raise PasswordRefused("The password contains a NUL character")
    return encoded


async def hash_password(password: str) -> str:
    """An argon2id hash. Takes about 40 ms of one CPU. Raises `PasswordRefused`."""
    encoded = check_password_form(password)
    return str(await _hashing.run(_argon2.hash, encoded))


async def verify_password(password: str, password_hash: str | None, *, known: bool = False) -> bool:
    """Whether the password is right. Without a hash (no such user) it takes as long, and is wrong. `known`: the address
    has logged in before, and goes first in the queue."""
    try:
        encoded = check_password_form(password)
    except PasswordRefused:
        return False
    hashed = password_hash or _DUMMY_HASH
    matches = await _hashing.run(_argon2.verify, encoded, hashed, known=known)
    return bool(matches) and password_hash is not None


class Tokens:
    """Issues and reads the two kinds of token."""

    def __init__(self, secret: str, *, access_seconds: int, refresh_seconds: int) -> None:
        self._secret = secret
        self._lifetimes: dict[TokenKind, int] = {"access": access_seconds, "refresh": refresh_seconds}
        # Verifying a signature costs as much as the rest of a poll, and clients poll with one token for an hour. Only
        # the signature is cached. The login is checked in the database every time.
        self._verified: TTLCache[str, Claims] = TTLCache(maxsize=4096, ttl=30)

    def issue(self, kind: TokenKind, user_id: str, session_id: UUID) -> str:
        now = int(time())
        claims = {
            "iss": _ISSUER,
            "aud": _ISSUER,
            "kind": kind,
            "sub": user_id,
            "sid": str(session_id),
            "iat": now,
            "exp": now + self._lifetimes[kind],
            "jti": secrets.token_hex(8),
        }
        return str(jwt.encode(claims, self._secret, algorithm=_ALGORITHM))

    def read_access(self, token: str) -> Claims:
        """The claims of a valid access token. Raises `InvalidToken` for anything else."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._read(token, "access")
            self._verified[token] = claims
        elif claims.expires_at.timestamp() <= time():
            raise InvalidToken
        return claims

    def read_refresh(self, token: str) -> Claims:
        """The claims of a valid refresh token. Raises `InvalidRefreshToken` for what is not a refresh token of ours.
        Raises `SessionEnded` for one that has expired, or whose signature is wrong, as after a change of the secret."""
        try:
            _check_form(token)
            _claims_of(jwt.get_unverified_claims(token), "refresh")
        except Exception as error:
            raise InvalidRefreshToken from error
        try:
            return self._read(token, "refresh")
        except InvalidToken as error:
            raise SessionEnded from error

    def _read(self, token: str, kind: TokenKind) -> Claims:
        try:
            _check_form(token)
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_ISSUER,
                issuer=_ISSUER,
                options=_REQUIRED,
            )
            return _claims_of(claims, kind)
        except Exception as error:  # whatever a forged token makes the library raise, the answer is the same
            raise InvalidToken from error


def _check_form(token: str) -> None:
    if len(token) > _MAX_TOKEN_BYTES or not token.isascii():
        raise ValueError("no token of ours is this long, or has such characters")


def _claims_of(claims: dict[str, Any], kind: TokenKind) -> Claims:
    """Read every claim that we use, and check its type. Raises KeyError, TypeError or ValueError."""
    if claims["kind"] != kind or type(claims["iat"]) is not int or not _USER_ID.fullmatch(claims["sub"]):
        raise ValueError(f"not {kind} claims")
    return Claims(claims["sub"], UUID(claims["sid"]), datetime.fromtimestamp(claims["exp"], UTC))


def installation_id(secret: str, provider: str = "") -> str:
    """The id of this installation at a telephony provider: 8 hex digits, derived from its secret and the provider's
    name."""
    return hmac.digest(secret.encode(), f"installation{provider}".encode(), "sha256").hex()[:8]


def secret_key_id(secret: str) -> str:
    """Tells one secret from another, and reveals neither."""
    return hmac.digest(secret.encode(), b"which secret", "sha256").hex()[:16]


class Vault:
    """Encrypts what is stored and must be read again, such as a provider's password."""

    def __init__(self, secret: str) -> None:
        key = HKDF(hashes.SHA256(), length=32, salt=None, info=b"ringback vault").derive(secret.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def encrypt(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, encrypted: str) -> str:
        """Raises ValueError for what was encrypted with another secret, or was changed since."""
        try:
            return self._fernet.decrypt(encrypted.encode()).decode()
        except NotDecryptable as error:
            raise ValueError("it was encrypted with another RINGBACK_SECRET_KEY") from error


class ProviderLinks:
    """URLs at which a provider may reach this server about one call. The signature covers the provider and the call."""

    def __init__(self, secret: str, public_url: str | None) -> None:
        self._key = hmac.digest(secret.encode(), b"provider links", "sha256")
        self._public_url = None if public_url is None else public_url.rstrip("/")

    def make(self, provider: str, call_id: str) -> str | None:
        """The URL for notifications of this call. None: this server has no public address."""
        if self._public_url is None:
            return None
        return f"{self._public_url}/api/telephony/{provider}/{call_id}/{self._sign(provider, call_id)}"

    def allows(self, provider: str, call_id: str, signature: str) -> bool:
        """Whether the signature is ours."""
        given = signature.encode("ascii", "replace").decode()
        return hmac.compare_digest(self._sign(provider, call_id), given)

    def _sign(self, provider: str, call_id: str) -> str:
        return hmac.new(self._key, f"{provider}\n{call_id}".encode(), hashlib.sha256).hexdigest()[:40]


class RecordingLinks:
    """Links to recordings that need no token. The signature covers the call, its owner and the expiry."""

    def __init__(self, secret: str, base_url: str) -> None:
        # Its own key, so that a signature of one kind is never valid as another.
        self._key = hmac.digest(secret.encode(), b"recording links", "sha256")
        self._base_url = base_url.rstrip("/")

    def make(self, call_id: str, owner_id: str, expires_at: datetime) -> str:
        """The link to this call's recording. The same for the same arguments."""
        expires = int(expires_at.timestamp())
        path = recording_path(call_id)
        return f"{self._base_url}{path}?expires={expires}&signature={self._sign(path, owner_id, expires)}"

    def allows(self, call_id: str, owner_id: str, expires: int, signature: str) -> bool:
        """Whether the signature is ours and has not expired."""
        expected = self._sign(recording_path(call_id), owner_id, expires)
        return hmac.compare_digest(expected, signature.encode("ascii", "replace").decode()) and expires > time()

    def _sign(self, path: str, owner_id: str, expires: int) -> str:
        return hmac.new(self._key, f"GET\n{path}\n{owner_id}\n{expires}".encode(), hashlib.sha256).hexdigest()


def recording_path(call_id: str) -> str:
    """The path where a call's recording is downloaded."""
    return f"/api/recordings/{call_id}"
