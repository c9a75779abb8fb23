"""One telephone is one number, in any spelling."""

import random

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.numbers import Extension, NumberFormat, NumberRules, PhoneNumber, mask, stored_callee

INDIA = NumberRules("IN")
ELSEWHERE = ("US", "GB", "AE", "SG", "AU", "DE", "FR", "ZA", "BR", "JP", "NZ")
KINDS = (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE)


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("919876543210", "919876543210"),
        ("+919876543210", "919876543210"),
        ("9876543210", "919876543210"),
        ("09876543210", "919876543210"),
        ("00919876543210", "919876543210"),
        ("+00919876543210", "919876543210"),
        ("0919876543210", "919876543210"),
        ("+0919876543210", "919876543210"),
        ("  +91 98765-43210 \n", "919876543210"),
        ("(+91) 98765.43210", "919876543210"),
        ("+91 (0) 98765 43210", "919876543210"),
        ("9876543210.0", "919876543210"),  # from a spreadsheet
        ("9199999999", "919199999999"),  # a mobile number that begins like the country code
        ("(022) 2345 6789", "912223456789"),
        ("1800 123 4567", "9118001234567"),
        ("447700900123", "447700900123"),
        ("15005550001", "15005550001"),
        ("+1 (500) 555-0001", "15005550001"),
        ("2212345678", "912212345678"),  # not assigned, but of a usual length
        ("+91999999", "91999999"),
        ("123456789012345", "123456789012345"),
        ("+99912345678", "99912345678"),
    ],
)
def test_reads_what_people_write(written: str, digits: str) -> None:
    assert INDIA.read(written) == PhoneNumber(digits)


@pytest.mark.parametrize(
    "written", ["4915123456789", "15123456789", "015123456789", "+4915123456789", "004915123456789"]
)
def test_a_country_whose_numbers_have_any_length(written: str) -> None:
    assert NumberRules("DE").read(written) == PhoneNumber("4915123456789")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "+",
        "()",
        "1234567",
        "1234567890123456",
        "++919999999999",
        "+09876543210",
        "00000000",
        "٩١٩٩٩٩٩٩٩٩٩٩",
        "91999\x009999",
        "98765\n43210",
        "98765\u00a043210",
        "\u202a+919876543210",
        "9876543210x12",
        "9876543210;ext=12",
        "9876543210,,12",
        "9876543210/11",
        "-9876543210",
        "9.87654E+09",
        "1800-FLOWERS",
        "tel:+919876543210",
        "98765" + " " * 100 + "43210",
    ],
)
def test_refuses_what_is_no_number(written: str) -> None:
    with pytest.raises(ValueError, match="8 to 15 digits"):
        INDIA.read(written)


@given(st.text() | st.from_regex(r"[+(]{0,2}[0-9 .()-]{6,20}", fullmatch=True))
def test_what_is_read_is_8_to_15_ascii_digits_and_no_country_code_begins_with_0(written: str) -> None:
    try:
        digits = INDIA.read(written).digits
    except ValueError:
        return
    assert 8 <= len(digits) <= 15
    assert set(digits) <= set("0123456789")
    assert digits[0] != "0"


def assigned_number(country: str, seed: int) -> phonenumbers.PhoneNumber | None:
    """A number that the country's plan has assigned, near the library's example."""
    chosen = random.Random(f"{country} {seed}")
    example = phonenumbers.example_number_for_type(country, chosen.choice(KINDS))
    if example is None:
        return None
    digits = list(str(example.national_number))
    for place in chosen.sample(range(len(digits)), min(len(digits), 7)):
        if place:
            digits[place] = str(chosen.randrange(10))
    example.national_number = int("".join(digits))
    return example if phonenumbers.is_valid_number_for_region(example, country) else None


def e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@given(st.integers(0, 10**6), st.sampled_from(("IN", "GB", "US")))
def test_a_number_of_the_home_country_is_one_however_it_is_written(seed: int, home: str) -> None:
    number = assigned_number(home, seed)
    if number is None:
        return
    digits = e164(number)[1:]
    own = str(number.national_number)
    national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    international = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    spellings = [f"+{digits}", digits, f"00{digits}", own, national, international, f"+{digits[:4]}-{digits[4:]}"]
    if home != "US":
        spellings.append(f"0{own}")
    rules = NumberRules(home)
    assert {rules.read(written) for written in spellings} == {PhoneNumber(digits)}
    read = rules.read(own)
    assert read.format(NumberFormat.DIGITS, home) == digits
    assert read.format(NumberFormat.E164, home) == f"+{digits}"
    dialed = read.format(NumberFormat.NATIONAL, home)
    assert rules.read(dialed) == read
    if home == "IN" and phonenumbers.number_type(number) == PhoneNumberType.MOBILE:
        assert dialed == f"0{own}"


@given(st.integers(0, 10**6), st.sampled_from(ELSEWHERE))
def test_a_number_of_another_country_stays_what_it_is(seed: int, country: str) -> None:
    number = assigned_number(country, seed)
    if number is None:
        return
    digits = e164(number)[1:]
    for written in (f"+{digits}", f"00{digits}"):
        assert INDIA.read(written) == PhoneNumber(digits)
    assert INDIA.read(f"+{digits}").format(NumberFormat.NATIONAL, "IN") == f"00{digits}"
    # Digits that are also a telephone in India are read as that one.
    at_home = phonenumbers.parse(digits, "IN")
    if not phonenumbers.is_valid_number(at_home):
        assert INDIA.read(digits) == PhoneNumber(digits)


def test_an_agent_can_be_an_extension() -> None:
    assert INDIA.read_agent("101") == Extension("101")
    assert INDIA.read_agent(" 1234567 ") == Extension("1234567")
    assert INDIA.read_agent("9876543210") == PhoneNumber("919876543210")
    for written in ("1", "", "10a", "+101", "१०१"):
        with pytest.raises(ValueError, match="8 to 15 digits"):
            INDIA.read_agent(written)
    with pytest.raises(ValueError, match="8 to 15 digits"):
        INDIA.read("101")
    assert stored_callee("101") == Extension("101")
    assert stored_callee("919876543210") == PhoneNumber("919876543210")


def test_masks_the_first_five() -> None:
    assert mask("919999912345") == "xxxxx9912345"
    assert mask("12") == "xx"
