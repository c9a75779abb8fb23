import asyncio
import json
from base64 import urlsafe_b64encode
from time import time
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jose import jwt

from app import security
from app.errors import InvalidRefreshToken, InvalidToken, SessionEnded
from app.security import Tokens, hash_password, verify_password
from tests.conftest import PRODUCTS_ARGON2

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"
TOKENS = Tokens(SECRET, access_seconds=7200, refresh_seconds=86400)
SESSION = uuid4()


def claims(**changes: Any) -> dict[str, Any]:
    good = {
        "iss": "ringback",
        "aud": "ringback",
        "kind": "access",
        "sub": "USR_00000000",
        "sid": str(SESSION),
        "iat": int(time()),
        "exp": int(time()) + 60,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def forged(_algorithm: str = "HS256", _secret: str = SECRET, **changes: Any) -> str:
    return str(jwt.encode(claims(**changes), _secret, algorithm=_algorithm))


ABSENT: list[dict[str, Any]] = [{name: None} for name in ("iss", "aud", "kind", "sub", "sid", "iat", "exp")]


def test_reads_what_it_issued() -> None:
    token = TOKENS.issue("access", "USR_12345678", SESSION)
    read = TOKENS.read_access(token)
    assert (read.user_id, read.session_id) == ("USR_12345678", SESSION)
    assert TOKENS.read_access(token) == read, "the second time, from the cache"


def unsigned() -> str:
    header, body = ({"alg": "none", "typ": "JWT"}, claims())
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body)) + "."


def nested_header() -> str:
    header = b'{"alg":' * 200 + b"1" + b"}" * 200
    return urlsafe_b64encode(header).decode() + ".e30.e30"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "..",
        "a.b.c",
        "x" * 20_000,
        "é.é.é",
        unsigned(),
        nested_header(),
        forged(_secret="another-secret-another-secret-another"),
        forged(_algorithm="HS512"),
        forged(exp=int(time()) - 1),
        forged(kind="refresh"),
        *(forged(**absent) for absent in ABSENT),
        forged(iss="somebody"),
        forged(aud="somebody"),
        forged(aud=["ringback", "x"], sub=7),
        forged(sub="USR_0000\x000"),
        forged(sub="USR_\ud800"),
        forged(sub=None),
        forged(sid="no-uuid"),
        forged(sid=None),
        forged(iat="now"),
        forged(exp=10**30),
    ],
    ids=lambda token: token[:12] or "empty",
)
def test_anything_else_is_no_access_token(token: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read_access(token)


@given(st.text(max_size=2000))
def test_no_text_breaks_it(token: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.read_access(token)
    with pytest.raises(InvalidRefreshToken):
        TOKENS.read_refresh(token)


def test_a_cached_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    token = TOKENS.issue("access", "USR_12345678", SESSION)
    TOKENS.read_access(token)
    later = time() + 7201
    monkeypatch.setattr(security, "time", lambda: later)
    with pytest.raises(InvalidToken):
        TOKENS.read_access(token)


def test_refresh_tokens_tell_ended_from_never_ours() -> None:
    assert TOKENS.read_refresh(TOKENS.issue("refresh", "USR_12345678", SESSION)).user_id == "USR_12345678"
    for not_ours in (TOKENS.issue("access", "USR_12345678", SESSION), forged(kind="refresh", sid=None), "a.b.c"):
        with pytest.raises(InvalidRefreshToken):
            TOKENS.read_refresh(not_ours)
    for ended in (forged(kind="refresh", exp=int(time()) - 1), forged(kind="refresh", _secret="x" * 32)):
        with pytest.raises(SessionEnded):
            TOKENS.read_refresh(ended)


@pytest.fixture
def products_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the cheap one of other tests."""
    monkeypatch.setattr(security, "_argon2", PRODUCTS_ARGON2)


@pytest.mark.usefixtures("products_argon2")
async def test_passwords() -> None:
    hashed = await security.hash_password("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await security.verify_password("correct horse", hashed)
    assert not await security.verify_password("wrong horse", hashed)
    assert not await security.verify_password("correct horse", None), "no such user"


@pytest.mark.parametrize("password", ["x" * 1025, "\ud800", "nul\0"])
async def test_passwords_that_no_hash_should_see(password: str) -> None:
    with pytest.raises(security.PasswordRefused):
        await security.hash_password(password)
    assert not await security.verify_password(password, None)


@pytest.mark.usefixtures("products_argon2")
async def test_whoever_is_known_is_not_queued_behind_strangers() -> None:
    password_hash = await hash_password("a good password")
    finished: list[str] = []

    async def verify(who: str, *, known: bool = False) -> None:
        assert await verify_password("a good password", password_hash, known=known)
        finished.append(who)

    strangers = [asyncio.create_task(verify(f"stranger {n}")) for n in range(8)]
    await asyncio.sleep(0)
    canceled = asyncio.create_task(verify("somebody who leaves", known=True))
    owner = asyncio.create_task(verify("owner", known=True))
    await asyncio.sleep(0)
    canceled.cancel()
    await asyncio.gather(owner, *strangers)
    assert finished[:2] == ["stranger 0", "owner"]
    assert len(finished) == 9
