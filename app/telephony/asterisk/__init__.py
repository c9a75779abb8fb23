"""Asterisk, by ARI: two legs, dialled one by one, joined in a bridge and recorded each on its own channel."""

from app.telephony.asterisk.adapter import Asterisk
from app.telephony.asterisk.options import AsteriskOptions

__all__ = ["Asterisk", "AsteriskOptions"]
