"""Answers, downloads, and why there is none."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

LONGEST_DOWNLOAD_SECONDS = 1800.0
"""A download that takes longer is given up, redirects included."""

FEW_TRIES = 6


class OutboundError(Exception):
    """The request could not be made, or not to its end; the text tells a person why."""

    no_answer = True
    """Whether nobody answered, or not in time."""
    tries: int | None = None
    """After how many attempts another one is of no use; None: it may always get better."""
    retry_after = 0.0
    """For how many seconds the server asked not to be asked again."""


class AddressRefused(OutboundError, OSError):
    """This is no address that a client may name. An OSError, because aiohttp passes on no other."""

    no_answer = False
    tries = FEW_TRIES


class UnusableUrl(OutboundError, ValueError):
    """Nobody can request this URL."""

    no_answer = False
    tries = 1


class NotThere(OutboundError):
    """It answered, but there is nothing to be had."""

    no_answer = False


class Gone(NotThere):
    """It answered that there will be nothing any more."""

    tries = 1


class RedirectRefused(NotThere):
    """It answered with a redirect that is not followed, or with too many."""

    tries = FEW_TRIES


class UndecodableBody(NotThere):
    """It answered in a way that is not understood."""

    tries = FEW_TRIES


class DownloadTooLarge(OutboundError):
    """More bytes came, or were announced, than are wanted."""

    no_answer = False
    tries = 1


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """What came back. `text` is the beginning of its body."""

    status: int
    retry_after: float
    """For how many seconds the server asked not to be asked again; 0 if it did not."""
    text: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is coming in."""

    content_type: str
    """The header as it came, with its parameters."""
    url: str
    """Where it was found in the end, without user and password."""
    chunks: AsyncIterator[bytes]
