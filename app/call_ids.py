"""The ids of calls. Pure."""

import re
import secrets
import string

_CALL_ID = re.compile(r"call_[0-9a-z]{16}")
_ID_ALPHABET = string.digits + string.ascii_lowercase


def is_call_id(text: str) -> bool:
    """Whether this has the form of a call's id."""
    return _CALL_ID.fullmatch(text) is not None


def new_call_id() -> str:
    """`call_` and 16 of [0-9a-z]."""
    number = secrets.randbits(96)  # 16 digits of base 36 hold the last 82 bits
    return "call_" + "".join(_ID_ALPHABET[number // 36**place % 36] for place in range(16))
