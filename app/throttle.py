"""Slows down whoever guesses passwords, without ever locking the owner out.

Only failed logins count, in sliding windows in Valkey. An address that failed too often on one account, or on many,
is refused for a while; nobody's failures refuse another address. When an account is attacked from many addresses at
once, its logins take a little longer. That does not touch an address from which somebody has logged in to it before:
it does not queue behind strangers either (`app.security`). If Valkey is away nobody is refused: the single hashing
thread still bounds how fast guesses can be tried.
"""

import asyncio
import hashlib
import ipaddress
import math
from time import time

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from app.errors import TooManyAttempts

log = structlog.get_logger()

_PER_ACCOUNT_AND_ADDRESS = parse("5 per 15 minute")
_PER_ADDRESS = parse("20 per 10 minute")
_PER_ACCOUNT = parse("30 per 15 minute")
_SLOWDOWN_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0
_KNOWN_SECONDS = 60 * 86400

_AWAY = (RedisError, OSError, TimeoutError)


class LoginThrottle:
    """Counts failed logins. One per process; the counts are shared through Valkey."""

    def __init__(self, redis_url: str) -> None:
        self._pool = BlockingConnectionPool.from_url(
            redis_url, max_connections=8, timeout=1, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=1
        )
        storage = RedisStorage(f"async+{redis_url}", implementation="redispy", connection_pool=self._pool)  # type: ignore[arg-type]
        self._limiter = MovingWindowRateLimiter(storage)
        self._redis: Redis = Redis(connection_pool=self._pool)

    async def aclose(self) -> None:
        """Close the connections to Valkey."""
        await self._pool.disconnect()

    async def check(self, account: str, address: str | None) -> bool:
        """Before a password is looked at. Returns whether somebody has logged in to the account from there before.
        Raises `TooManyAttempts` with the seconds to wait."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for limit, keys in _refusing(account, address):
                    if not await self._limiter.test(limit, *keys):
                        await self._refuse(limit, keys)
                if await self._redis.exists(_known_key(account, address)):
                    return True
                attacked = not await self._limiter.test(_PER_ACCOUNT, "account", account)
        except _AWAY as error:
            log.warning("login_throttle_unavailable", error=repr(error))
            return False
        if attacked:
            await asyncio.sleep(_SLOWDOWN_SECONDS)
        return False

    async def record_success(self, account: str, address: str | None) -> None:
        """After a login. The address is known from now on, for 60 days."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._redis.set(_known_key(account, address), 1, ex=_KNOWN_SECONDS)
        except _AWAY as error:
            log.warning("login_throttle_unavailable", error=repr(error))

    async def record_failure(self, account: str, address: str | None) -> None:
        """After a wrong password, or an unknown account, which must look the same."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for limit, keys in _refusing(account, address):
                    await self._limiter.hit(limit, *keys)
                await self._limiter.hit(_PER_ACCOUNT, "account", account)
        except _AWAY as error:
            log.warning("login_throttle_unavailable", error=repr(error))

    async def _refuse(self, limit: RateLimitItem, keys: tuple[str, ...]) -> None:
        window = await self._limiter.get_window_stats(limit, *keys)
        wait = max(1, math.ceil(window.reset_time - time()))
        raise TooManyAttempts(f"Too many failed logins. Try again in {wait} seconds", retry_after=wait)


def _known_key(account: str, address: str | None) -> str:
    """The account is hashed: whoever reads Valkey's keys needs to know nobody's e-mail address."""
    digest = hashlib.sha256(account.encode("utf-8", "replace")).hexdigest()[:32]
    return f"ringback:known-login:{digest}:{address_prefix(address)}"


def _refusing(account: str, address: str | None) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
    source = address_prefix(address)
    return [
        (_PER_ACCOUNT_AND_ADDRESS, ("account+address", account, source)),
        (_PER_ADDRESS, ("address", source)),
    ]


def address_prefix(address: str | None) -> str:
    """What one attacker holds: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if ip.version == 6:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
