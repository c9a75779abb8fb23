"""Requests to addresses that clients named: callbacks, and recordings to fetch. A leaf."""

from app.outbound.addresses import Network, is_public, parse_networks
from app.outbound.base import (
    LONGEST_DOWNLOAD_SECONDS,
    AddressRefused,
    Answer,
    Download,
    NotThere,
    OutboundError,
    UnusableUrl,
)
from app.outbound.client import Outbound
from app.outbound.urls import host_of

__all__ = [
    "LONGEST_DOWNLOAD_SECONDS",
    "AddressRefused",
    "Answer",
    "Download",
    "Network",
    "NotThere",
    "Outbound",
    "OutboundError",
    "UnusableUrl",
    "host_of",
    "is_public",
    "parse_networks",
]
