"""Which numbers may be dialed: countries and prefixes, and never a number that is made to cost much. Pure.

A list of destinations is text: `IN, GB, +97150`. An ISO code allows the country's fixed and mobile numbers. A prefix
allows the numbers that begin with it, also toll-free ones and those that Google's libphonenumber does not know.
"""

import re

import phonenumbers
from phonenumbers import PhoneNumberType

from app.numbers import PhoneNumber, is_country

_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")

_ORDINARY = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.VOIP,
    }
)
_COSTLY = {
    PhoneNumberType.PREMIUM_RATE: "a premium-rate number",
    PhoneNumberType.SHARED_COST: "a shared-cost number",
    PhoneNumberType.PERSONAL_NUMBER: "a personal number, whose price nobody can know",
    PhoneNumberType.PAGER: "a pager",
    PhoneNumberType.VOICEMAIL: "a mailbox",
    PhoneNumberType.UAN: "a company's access number, whose price nobody can know",
}
_WORLD = "001"
"""libphonenumber's region of numbers that belong to no country: satellites and international services."""
_SATELLITES = ("870", "878", "881", "882", "883", "888", "979", "808")


def read_destinations(text: str) -> tuple[str, ...]:
    """The entries of a list, in one spelling. Raises ValueError that names the entry that is wrong."""
    entries = []
    for written in filter(None, (part.strip() for part in re.split(r"[,\s]+", text))):
        entry = written.upper()
        if not _PREFIX.fullmatch(entry) and not is_country(entry):
            raise ValueError(f"{written} is neither the ISO code of a country, as IN, nor a prefix, as +9140")
        entries.append(entry)
    return tuple(dict.fromkeys(entries))


def find_refusal(number: PhoneNumber, allowed: tuple[str, ...]) -> str | None:
    """Why the number may not be dialed, as the end of a sentence that begins with the number. None: it may."""
    parsed = phonenumbers.PhoneNumber()
    try:
        parsed = phonenumbers.parse(f"+{number.digits}")
    except phonenumbers.NumberParseException:
        return "belongs to no country"
    kind = phonenumbers.number_type(parsed)
    region = phonenumbers.region_code_for_number(parsed)
    if number.digits.startswith(_SATELLITES) or region == _WORLD:
        return "is a satellite or international service number"
    if kind in _COSTLY:
        return f"is {_COSTLY[kind]}"
    if any(entry.startswith("+") and f"+{number.digits}".startswith(entry) for entry in allowed):
        return None
    if kind == PhoneNumberType.TOLL_FREE:
        return "is a toll-free number. Its prefix can be added to the destinations"
    if kind not in _ORDINARY:
        return "is no ordinary telephone number. Its prefix can be added to the destinations, if it is one"
    if region not in allowed:
        return f"is a number of {region or 'another country'}, and only {', '.join(allowed) or 'none'} may be called"
    return None
