"""Telephone numbers: parsed once at the door, stored as digits, masked wherever a person may look over a shoulder."""

import re

# [0-9], not \d: that matches every script's digits, and no exchange dials those.
_NUMBER = re.compile(r"[ \t\r\n]*\+?([0-9]{8,15})[ \t\r\n]*")

RULE = "must be 8 to 15 digits, with an optional leading +"


def parse(number: str) -> str:
    """The digits of a number as a client wrote it. Raises ValueError with the rule."""
    match = _NUMBER.fullmatch(number)
    if match is None:
        raise ValueError(RULE)
    return match[1]


def did_key(number: str) -> str:
    """What a rented number is found by: an Indian number with its country code and without it is one number."""
    return number[2:] if len(number) == 12 and number.startswith("91") else number


def spellings(number: str) -> set[str]:
    """The ways in which this number may have been written: with India's 91, and without."""
    key = did_key(number)
    return {number, key, f"91{key}"} if len(key) == 10 else {number}


def mask(number: str) -> str:
    """The number with its first five characters as `x`, as the vendor's newest API shows it."""
    return "x" * min(5, len(number)) + number[5:]
