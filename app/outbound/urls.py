"""URLs as they were given, and targets of redirects. Path and query may be signed, so none of their bytes change."""

import re
from urllib.parse import urljoin

from yarl import URL

from app.outbound.base import RedirectRefused, UnusableUrl

_URL = re.compile(r"(?i)(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_NOT_IN_A_TARGET = re.compile(r"[^\x21-\x7e]")


def host_of(url: str) -> str:
    """Host and port that a request to this URL goes to.

    Raises `UnusableUrl`, a ValueError, if there can be no request.
    """
    return str(parse(url).host_port_subcomponent)


def parse(url: str) -> URL:
    """Parse the URL, and keep its path and query byte for byte. Only what a request cannot contain is encoded: blanks,
    control characters, and letters that are not ASCII. Raises `UnusableUrl`."""
    parts = _URL.fullmatch(url.strip())
    if parts is None:
        raise UnusableUrl("its address is no http or https URL")
    scheme, authority, target = parts.groups()
    try:
        server = URL(f"{scheme.lower()}://{authority}")
        if not server.raw_host or server.port == 0:
            raise UnusableUrl("its address names no host")
        target = _NOT_IN_A_TARGET.sub(_encoded, target if target.startswith("/") else f"/{target}")
        if target.find("?") == len(target) - 1:  # yarl drops an empty query, but keeps every byte of a path
            return URL.build(scheme=server.scheme, authority=server.raw_authority, path=target, encoded=True)
        return URL(f"{server.scheme}://{server.raw_authority}{target}", encoded=True)
    except UnusableUrl:
        raise
    except ValueError:  # its text may have the URL's password
        raise UnusableUrl("its address is no http or https URL") from None


def _encoded(letter: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in letter[0].encode("utf-8", "surrogateescape"))


def redirected(place: URL, location: str) -> URL:
    """Where a response from `place` with this `Location` leads. Raises `RedirectRefused`.

    User and password only go to the server that they are for.
    """
    location = location.strip()
    if not location:
        raise RedirectRefused("the server redirected, and did not say where to")
    scheme = _SCHEME.match(location)
    if scheme is None:
        server = f"{place.scheme}://{place.raw_authority}"
        if location.startswith("//"):
            location = f"{place.scheme}:{location}"
        else:
            location = server + location if location[0] == "/" else urljoin(f"{server}{place.raw_path}", location)
    elif scheme[1].lower() not in ("http", "https"):
        raise RedirectRefused(
            f"the server redirected to an address of {scheme[1][:20]}, which is neither http nor https"
        )
    try:
        target = parse(location)
    except UnusableUrl as error:
        raise RedirectRefused(f"the server redirected to an address that cannot be requested: {error}") from None
    if place.scheme == "https" and target.scheme == "http":
        raise RedirectRefused("the server redirected from https to http, where others can read along")
    if target.raw_user is None and place.raw_user is not None and target.origin() == place.origin():
        target = target.with_user(place.user).with_password(place.password)
    return target
