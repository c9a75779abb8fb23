"""How pages are made: templates, headers, addresses of files, and errors as pages."""

import hashlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import jinja2
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse

from app.call_lists import ListedCall
from app.console import words
from app.console.session import ForgedForm, NoPage, SignInFirst, Viewer
from app.db import is_unreachable
from app.errors import NotFound, NotYours, RingbackError
from app.telephony.base import ProviderError

log = structlog.get_logger()

_HERE = Path(__file__).parent
STATIC = _HERE / "static"

HEADERS = {
    # Scripts and styles are files, so nothing that a stranger wrote can be one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FLASH = "flash"
_LONGEST_FLASH = 300


@cache
def asset(name: str) -> str:
    """The address of a file, which changes with its content."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(asset=asset, words=words, version=version("ringback"))


def render_row(call: ListedCall, viewer: Viewer, now: datetime, *, all_users: bool) -> str:
    """One row of a list of calls. `all_users`: the list has the calls of all users."""
    return str(_templates.get_template("_row.html").module.row(call, viewer, now, all_users))  # type: ignore[attr-defined]


def render(template: str, **values: Any) -> str:
    """A template with these values."""
    return _templates.get_template(template).render(values)


def page(request: Request, template: str, viewer: Viewer | None, status: int = 200, **values: Any) -> Response:
    """A whole page. `viewer` is None before signing in."""
    body = render(
        template,
        viewer=viewer,
        path=request.url.path,
        now=datetime.now(UTC),
        theme=theme_of(request),
        flash=unquote(request.cookies.get(_FLASH, "")),
        **values,
    )
    response = HTMLResponse(body, status, HEADERS)
    if _FLASH in request.cookies:
        response.delete_cookie(_FLASH, path="/")
    return response


def theme_of(request: Request) -> str:
    """`light` or `dark` if the viewer has chosen one, else an empty text."""
    chosen = request.cookies.get("theme", "")
    return chosen if chosen in ("light", "dark") else ""


def go(to: str, say: str = "") -> Response:
    """Send the browser to another page of ours, which says this once."""
    response = RedirectResponse(to, 303, HEADERS)
    if say:
        response.set_cookie(_FLASH, quote(say[:_LONGEST_FLASH]), max_age=20, httponly=True, samesite="lax", path="/")
    return response


def own_path(path: str, otherwise: str = "/calls") -> str:
    """The path, if it is one of ours. A link to the sign-in page must not lead elsewhere afterwards."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path and path.isprintable()
    return path if ours else otherwise


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInFirst:
                asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                back = {"next": asked} if request.method == "GET" and asked not in ("/", "/calls") else {}
                return go("/login" + (f"?{urlencode(back)}" if back else ""))
            except ForgedForm:
                return _failed(request, 403, "This form is out of date", "Go back, load the page again, and repeat it.")
            except (NoPage, NotFound, NotYours, RequestValidationError):
                # Another user's call looks like one that does not exist.
                return _failed(request, 404, "There is nothing here", "It may have been deleted, or it is not yours.")
            except RingbackError as error:
                return _failed(request, error.status, "That did not work", error.message)
            except ClientDisconnect:
                raise  # nobody reads a page
            except ProviderError as error:
                log.warning("provider_unusable", error=str(error))
                return _failed(request, 503, "The telephony provider cannot be used", str(error))
            except Exception as error:
                if is_unreachable(error):
                    log.warning("database_unreachable", error=repr(error))
                    return _failed(request, 503, "The server cannot reach its database", "Try again in some seconds.")
                log.exception("unexpected_error")
                request_id = structlog.contextvars.get_contextvars().get("request_id", "")
                why = f"The server's log says more, at the request {request_id}."
                return _failed(request, 500, "Something went wrong on this server", why)

        return handle_as_page


def _failed(request: Request, status: int, title: str, why: str) -> Response:
    return page(request, "failed.html", None, status, title=title, why=why)
