"""Asterisk, by ARI. Two legs are dialed one after the other, joined in a bridge, and recorded on a channel each."""

from app.telephony.asterisk.adapter import Asterisk
from app.telephony.asterisk.options import AsteriskOptions

__all__ = ["Asterisk", "AsteriskOptions"]
