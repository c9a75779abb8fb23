"""Exotel, by its REST interface. One order connects two numbers: the agent first, then the customer."""

from app.telephony.exotel.adapter import Exotel
from app.telephony.exotel.options import ExotelOptions

__all__ = ["Exotel", "ExotelOptions"]
