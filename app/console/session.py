"""Who looks: the cookie of a browser's login, the token against forged forms, and what an operator may see."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Depends, Request, Response

from app import browser_logins
from app.audit import Actor
from app.browser_logins import LONGEST_SECONDS, BrowserLogin
from app.web.bodies import read_raw_body
from app.web.resources import get_resources

_PLAIN_COOKIE = "ringback"
_SECURE_COOKIE = "__Host-ringback"  # browsers accept it only over TLS, for this host and all paths


class SignInFirst(Exception):
    """Nobody is signed in. The page is shown after signing in."""


class ForgedForm(Exception):
    """A form that does not come from a page of this login."""


class NoPage(Exception):
    """There is no such page, or this user may not see it."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page."""

    login: BrowserLogin
    zone: ZoneInfo
    csrf: str
    address: str | None

    @property
    def user_id(self) -> str:
        return self.login.claims.user_id

    @property
    def actor(self) -> Actor:
        return Actor(self.login.email, self.address)

    @property
    def reach(self) -> str | None:
        """Whose things this viewer may see: those of this user, or of all users."""
        return None if self.login.is_operator else self.user_id

    def may_see(self, owner: str) -> bool:
        return self.login.is_operator or owner == self.user_id


def _cookie_name(request: Request) -> str:
    return _SECURE_COOKIE if request.url.scheme == "https" else _PLAIN_COOKIE


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Keep the login in the browser."""
    response.set_cookie(
        _cookie_name(request),
        token,
        max_age=LONGEST_SECONDS,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def delete_cookie(request: Request, response: Response) -> None:
    """Remove the login from the browser."""
    response.delete_cookie(_cookie_name(request), path="/")


def _csrf(request: Request, login: BrowserLogin) -> str:
    secret = get_resources(request).settings.secret_key.get_secret_value().encode()
    key = hmac.digest(secret, b"console forms", "sha256")
    return hmac.new(key, login.claims.session_id.bytes, hashlib.sha256).hexdigest()


async def find_viewer(request: Request) -> Viewer | None:
    """Who is signed in, if anybody."""
    token = request.cookies.get(_cookie_name(request), "")
    if not token:
        return None
    async with get_resources(request).db.transaction() as session:
        login = await browser_logins.find(session, token)
    if login is None:
        return None
    address = request.client.host if request.client else None
    return Viewer(login, zone_of(request), _csrf(request, login), address)


async def _viewer(request: Request) -> Viewer:
    """Raises `SignInFirst`, and `ForgedForm` for a request that changes something."""
    found = await find_viewer(request)
    if found is None:
        raise SignInFirst
    if request.method not in ("GET", "HEAD"):
        check_origin(request)
        if not hmac.compare_digest((await read_form(request)).get("csrf", "").encode(), found.csrf.encode()):
            raise ForgedForm
    return found


async def _operator(viewer: Annotated[Viewer, Depends(_viewer)]) -> Viewer:
    if not viewer.login.is_operator:
        raise NoPage
    return viewer


Seen = Annotated[Viewer, Depends(_viewer)]
SeenByOperator = Annotated[Viewer, Depends(_operator)]


def check_origin(request: Request) -> None:
    """Raises `ForgedForm` unless the browser says that one of our own pages sent this."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:  # browsers send it over TLS and on loopback, and it is right behind any proxy
        if site not in ("same-origin", "none"):
            raise ForgedForm
        return
    ours = {request.headers.get("Host"), urlsplit(str(get_resources(request).settings.public_url or "")).netloc}
    if origin is not None and urlsplit(origin).netloc not in ours - {""}:
        raise ForgedForm


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, each without blanks around it. Raises `BodyTooLarge`, `ValidationFailed`."""
    if not hasattr(request.state, "form"):
        body = (await read_raw_body(request)).decode("utf-8", "replace")
        fields = parse_qsl(body, keep_blank_values=True, max_num_fields=1000)
        request.state.form = {name: value.replace("\0", "").strip() for name, value in fields}
    form: dict[str, str] = request.state.form
    return form


def zone_of(request: Request) -> ZoneInfo:
    """The time zone of the browser, which a script writes into a cookie; else that of the installation."""
    try:
        return ZoneInfo(request.cookies["tz"])
    except (KeyError, ValueError, OSError, ZoneInfoNotFoundError):
        return get_resources(request).settings.zone
