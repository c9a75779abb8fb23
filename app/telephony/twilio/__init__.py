"""Calls over Twilio, and over providers that copy its REST interface. docs/twilio.md is the page for users."""

from app.telephony.twilio.adapter import Twilio
from app.telephony.twilio.options import TwilioOptions

__all__ = ["Twilio", "TwilioOptions"]
