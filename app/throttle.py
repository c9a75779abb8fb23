"""Slows down password guessing, without locking the owner out.

Only failed logins count, in sliding windows in Valkey. An address with too many failures, on one account or on many, is
refused for a while. Failures of one address never refuse another. When many addresses attack an account at once, its
logins take a little longer, except from addresses that have logged in to it before. Those do not queue behind unknown
addresses either (`app.security`). Without Valkey nobody is refused, and the single hashing thread limits how fast
passwords can be guessed.
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
from app.hints import LEAVES_REPLICA

log = structlog.get_logger()

_PER_ACCOUNT_AND_ADDRESS = parse("5 per 15 minute")
_PER_ADDRESS = parse("20 per 10 minute")
_PER_ACCOUNT = parse("30 per 15 minute")
_SLOWDOWN_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0
_KNOWN_SECONDS = 60 * 86400

_AWAY = (RedisError, OSError, TimeoutError)


class LoginThrottle:
    """Counts failed logins. One per process. Processes share the counts through Valkey."""

    def __init__(self, redis_url: str) -> None:
        self._pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=8,
            timeout=1,
            socket_timeout=_PATIENCE_SECONDS,
            socket_connect_timeout=1,
            retry_on_error=LEAVES_REPLICA,
        )
        storage = RedisStorage(f"async+{redis_url}", implementation="redispy", connection_pool=self._pool)  # type: ignore[arg-type]
        self._limiter = MovingWindowRateLimiter(storage)
        self._redis: Redis = Redis(connection_pool=self._pool)

    async def aclose(self) -> None:
        """Close the connections to Valkey."""
        await self._pool.disconnect()

    async def check(self, account: str, address: str | None) -> bool:
        """Call it before checking a password. Returns whether the account has logged in from this address before.
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
        """Call it after a login. The address is known from now on, for 60 days."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._redis.set(_known_key(account, address), 1, ex=_KNOWN_SECONDS)
        except _AWAY as error:
            log.warning("login_throttle_unavailable", error=repr(error))

    async def record_failure(self, account: str, address: str | None) -> None:
        """Call it after a wrong password, and after an unknown account, so that both look the same."""
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
    """The account is hashed, so that Valkey's keys show no e-mail address."""
    digest = hashlib.sha256(account.encode("utf-8", "replace")).hexdigest()[:32]
    return f"ringback:known-login:{digest}:{address_prefix(address)}"


def _refusing(account: str, address: str | None) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
    source = address_prefix(address)
    return [
        (_PER_ACCOUNT_AND_ADDRESS, ("account+address", account, source)),
        (_PER_ADDRESS, ("address", source)),
    ]


def address_prefix(address: str | None) -> str:
    """What one attacker controls: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if ip.version == 6:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
