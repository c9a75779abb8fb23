"""Requests to URLs that clients choose: callbacks, and recordings to fetch."""

from app.outbound.addresses import Network, is_public, parse_networks
from app.outbound.base import (
    LONGEST_DOWNLOAD_SECONDS,
    AddressRefused,
    Download,
    NotThere,
    OutboundError,
    OutboundResponse,
    UnusableUrl,
)
from app.outbound.client import Outbound
from app.outbound.urls import host_of

__all__ = [
    "LONGEST_DOWNLOAD_SECONDS",
    "AddressRefused",
    "Download",
    "Network",
    "NotThere",
    "Outbound",
    "OutboundError",
    "OutboundResponse",
    "UnusableUrl",
    "host_of",
    "is_public",
    "parse_networks",
]
