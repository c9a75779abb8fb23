"""Calls over Plivo, and over Vobiz, which copies most of it. docs/plivo.md is the page for users."""

from app.telephony.plivo.adapter import Plivo, Vobiz
from app.telephony.plivo.options import PlivoOptions, VobizOptions

__all__ = ["Plivo", "PlivoOptions", "Vobiz", "VobizOptions"]
