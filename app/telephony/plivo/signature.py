"""The signatures of notifications: version 3 of Plivo's, which Vobiz copies under other header names. Pure.

HMAC-SHA256 over the URL, its query and the form in sorted order, and a nonce.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from app.telephony.base import Notification


def is_signed(notification: Notification, token: str, header: str) -> bool:
    """Whether `token` signed this. `header` is the name of the signature's header. It may hold several signatures."""
    nonce = notification.headers.get(f"{header}-nonce", "")
    sent = notification.headers.get(header, "").split(",")
    form = dict(notification.form)
    text = _signed_url(notification.url, form) if notification.method == "POST" else _sorted_url(notification.url, form)
    digest = hmac.new(token.encode(), f"{text}.{nonce}".encode(), hashlib.sha256).digest()
    expected = base64.b64encode(digest)
    return any([hmac.compare_digest(expected, one.strip().encode()) for one in sent])


def _signed_url(url: str, form: Mapping[str, str]) -> str:
    if not form:
        return _sorted_url(url, {})
    base, _, query = _sorted_url(url, {}).partition("?")
    fields = "".join(f"{name}{value}" for name, value in sorted(form.items()))
    return f"{base}?{query}.{fields}" if query else f"{base}?{fields}"


def _sorted_url(url: str, more: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    values: dict[str, list[str]] = {name: [value] for name, value in more.items()}
    values |= parse_qs(parts.query, keep_blank_values=True)
    query = "&".join(f"{name}={value}" for name in sorted(values) for value in sorted(values[name]))
    base = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return f"{base}?{query}" if query else base
