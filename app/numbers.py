"""Telephone numbers. Text from outside is read once, into one of the value types below.

One telephone has many spellings. In India, `9876543210`, `09876543210`, `+91 98765-43210` and `00919876543210` are the
same. The `phonenumbers` library (Google's libphonenumber) reads them, with the installation's home country.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import phonenumbers
from phonenumbers import NumberParseException, PhoneMetadata, PhoneNumberFormat, PhoneNumberType, ValidationResult

_FEWEST_DIGITS, _MOST_DIGITS = 8, 15
_LONGEST_WRITTEN = 100
"""Characters. Numbers are cached as they were written, and a request body can hold 64 KB of blanks between digits."""

# [0-9] and not \d, because \d matches the digits of every script, and no exchange dials those
_WRITTEN = re.compile(r"\(?(\+?)([ (]*[0-9](?:[0-9 \t.()-]*[0-9])?)\)?")
_SEPARATORS = str.maketrans("", "", " \t.-()")
_EXTENSION = re.compile(r"[0-9]{2,7}")
# What a spreadsheet makes of a number without quotes, as 9876543210.0
_FLOAT = re.compile(r"(\+?[0-9]{8,15})\.0+")

RULE = (
    "must be a telephone number of 8 to 15 digits, as +919876543210 or as it is dialed at home; only blanks, dots, "
    "hyphens and brackets may stand between the digits"
)


class NumberFormat(StrEnum):
    """The formats that telephony systems want numbers in."""

    DIGITS = "digits"
    """`919876543210`"""
    E164 = "e164"
    """`+919876543210`"""
    NATIONAL = "national"
    """As dialed in the home country: `09876543210`, and `00447400123456` for a number abroad."""


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """One telephone. `digits` are its E.164 digits without the plus: what is stored, shown and compared."""

    digits: str

    def __str__(self) -> str:
        return self.digits

    def format(self, number_format: NumberFormat, home_country: str) -> str:
        """The number as it is dialed. `home_country` is an ISO code, as `IN`."""
        if number_format is NumberFormat.DIGITS:
            return self.digits
        if number_format is NumberFormat.E164:
            return f"+{self.digits}"
        if self.digits.startswith(str(phonenumbers.country_code_for_region(home_country))):
            return _at_home(self, home_country)
        return _international_prefix(home_country) + self.digits


@dataclass(frozen=True, slots=True)
class Extension:
    """A telephone inside the company's own PBX: 2 to 7 digits, dialed and shown as they are."""

    digits: str

    def __str__(self) -> str:
        return self.digits


Callee = PhoneNumber | Extension
"""Who can be dialed. A customer is always a `PhoneNumber`."""


@dataclass(frozen=True, slots=True)
class NumberRules:
    """How an installation reads numbers. `home_country` is an ISO code, as `IN`."""

    home_country: str

    def read(self, written: str) -> PhoneNumber:
        """The number that a person or a client wrote. Raises ValueError with the rule."""
        return _read(written, self.home_country)

    def read_agent(self, written: str) -> Callee:
        """An agent: a number or an extension. Raises ValueError with the rule."""
        return _find_extension(written) or self.read(written)


def stored_callee(digits: str) -> Callee:
    """The value of digits that were stored."""
    return PhoneNumber(digits) if len(digits) >= _FEWEST_DIGITS else Extension(digits)


def digits_of(callee: Callee | None) -> str | None:
    """The digits to store."""
    return None if callee is None else callee.digits


def is_country(code: str) -> bool:
    """Whether this is the ISO code of a country or territory with a numbering plan."""
    return code in phonenumbers.SUPPORTED_REGIONS


def mask(digits: str) -> str:
    """The number with its first five characters as `x`, as the vendor's newest API shows it."""
    return "x" * min(5, len(digits)) + digits[5:]


def part_of_number(written: str) -> str:
    """Part of a number, to search stored digits with: separators are removed."""
    return written.translate(_SEPARATORS).removeprefix("+")


def _find_extension(written: str) -> Extension | None:
    written = written.strip(" \t\r\n")
    return Extension(written) if _EXTENSION.fullmatch(written) else None


@lru_cache(maxsize=4096)  # A client has few agents and DIDs, and reading a number takes half the CPU of a poll.
def _read(written: str, home_country: str) -> PhoneNumber:
    text = _plain(written)
    with_both_prefixes = _after_both_prefixes(text, home_country)
    if with_both_prefixes is not None:
        return with_both_prefixes
    if text.startswith("+"):
        return _abroad(text[1:]).number
    # Where numbers may have any length, as in Germany, a mobile number with the home country's code is read as that,
    # and not as a longer national number.
    with_code = _abroad(text)
    if with_code.is_mobile and text.startswith(str(phonenumbers.country_code_for_region(home_country))):
        return with_code.number
    # At home first: 9876543210 is a telephone in India before it is +98 76543210.
    home = _parse(text, home_country)
    if home.is_assigned:
        return home.number
    if with_code.is_assigned:
        return with_code.number
    # The library knows no assigned range for it, but new ranges are dialed before the library knows them. So the
    # reading whose length is usual in its country is taken.
    if home.is_ordinary:
        return home.number
    return home.number if text[0] == "0" and text[1] != "0" else with_code.number


def _plain(written: str) -> str:
    """An optional plus, and the digits."""
    written = written.strip(" \t\r\n")
    if (float_match := _FLOAT.fullmatch(written)) is not None:
        written = float_match[1]
    match = _WRITTEN.fullmatch(written)
    if match is None or len(written) > _LONGEST_WRITTEN:
        raise ValueError(RULE)
    text = match[1] + match[2].translate(_SEPARATORS)
    if len(text) - len(match[1]) < _FEWEST_DIGITS:
        raise ValueError(RULE)
    return text


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read the text: as the library parsed it, with the E.164 digits."""

    parsed: phonenumbers.PhoneNumber | None
    digits: str

    @property
    def is_assigned(self) -> bool:
        return self.parsed is not None and phonenumbers.is_valid_number(self.parsed)

    @property
    def is_mobile(self) -> bool:
        return self.parsed is not None and phonenumbers.number_type(self.parsed) == PhoneNumberType.MOBILE

    @property
    def is_ordinary(self) -> bool:
        """Whether the number is as long as telephone or mobile numbers of its country."""
        if self.parsed is None:
            return False
        kind = PhoneNumberType.FIXED_LINE_OR_MOBILE
        reason = phonenumbers.is_possible_number_for_type_with_reason(self.parsed, kind)
        return bool(reason == ValidationResult.IS_POSSIBLE)

    @property
    def number(self) -> PhoneNumber:
        """Raises ValueError for what is no number in any country: no country code begins with 0."""
        if not _FEWEST_DIGITS <= len(self.digits) <= _MOST_DIGITS or self.digits.startswith("0"):
            raise ValueError(RULE)
        return PhoneNumber(self.digits)


def _parse(text: str, region: str | None) -> _Reading:
    try:
        parsed = phonenumbers.parse(text, region)
    except NumberParseException:
        return _Reading(None, text.removeprefix("+"))
    return _Reading(parsed, phonenumbers.format_number(parsed, PhoneNumberFormat.E164).removeprefix("+"))


def _abroad(digits: str) -> _Reading:
    """Reads digits that begin with a country code, or with 00 and a country code."""
    return _parse("+" + digits.removeprefix("00"), None)


def _after_both_prefixes(text: str, home_country: str) -> PhoneNumber | None:
    """Reads a number behind both a trunk prefix and the country code, which some people write: 0919876543210."""
    prefix = f"0{phonenumbers.country_code_for_region(home_country)}"
    digits = text.removeprefix("+")
    if not digits.startswith(prefix):
        return None
    reading = _parse(f"+{digits[1:]}", None)
    is_other = not text.startswith("+") and _parse(text, home_country).is_assigned
    return reading.number if reading.is_assigned and not is_other else None


def _at_home(number: PhoneNumber, home_country: str) -> str:
    """The number as people dial it inside the country: with the trunk prefix, unless its kind has none (1800 …)."""
    reading = _parse(f"+{number.digits}", None)
    if reading.parsed is not None and reading.is_assigned:
        national = phonenumbers.format_number(reading.parsed, PhoneNumberFormat.NATIONAL)
        return "".join(filter(str.isdigit, national))
    metadata = PhoneMetadata.metadata_for_region(home_country)
    trunk_prefix = (metadata and metadata.national_prefix) or ""
    return trunk_prefix + number.digits.removeprefix(str(phonenumbers.country_code_for_region(home_country)))


def _international_prefix(home_country: str) -> str:
    metadata = PhoneMetadata.metadata_for_region(home_country)
    known = metadata and (metadata.preferred_international_prefix or metadata.international_prefix)
    prefix = (known or "").replace("~", "")  # a tilde stands for a wait for the tone
    return prefix if prefix.isdigit() else "00"
