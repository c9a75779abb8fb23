"""Responses, downloads and errors of outbound requests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

LONGEST_DOWNLOAD_SECONDS = 1800.0
"""A download that takes longer fails. Redirects are included."""

FEW_TRIES = 6


class OutboundError(Exception):
    """The request failed. The text is for a person."""

    no_answer = True
    """Whether there was no response, or not in time."""
    tries: int | None = None
    """The number of attempts after which another one is useless. None: another one may always work."""
    retry_after = 0.0
    """The pause that the server asked for, in seconds."""


class AddressRefused(OutboundError, OSError):
    """A client must not use this address. An OSError, because aiohttp passes on no other error."""

    no_answer = False
    tries = FEW_TRIES


class UnusableUrl(OutboundError, ValueError):
    """No request can be sent to this URL."""

    no_answer = False
    tries = 1


class NotThere(OutboundError):
    """The server responded, but there is no file."""

    no_answer = False


class Gone(NotThere):
    """The server responded that the file is gone for good."""

    tries = 1


class RedirectRefused(NotThere):
    """The server responded with a redirect that is not followed, or with too many."""

    tries = FEW_TRIES


class UndecodableBody(NotThere):
    """The response cannot be decoded."""

    tries = FEW_TRIES


class DownloadTooLarge(OutboundError):
    """The file is, or is announced as, larger than allowed."""

    no_answer = False
    tries = 1


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """A response. `text` is the beginning of its body."""

    status: int
    retry_after: float
    """The pause that the server asked for, in seconds. 0: none."""
    text: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is being downloaded."""

    content_type: str
    """The header as it came, with its parameters."""
    url: str
    """The URL after redirects, without user and password."""
    chunks: AsyncIterator[bytes]
