import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import numbers


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("919999999999", "919999999999"),
        ("+919999999999", "919999999999"),
        ("  +91999999 \n", "91999999"),
        ("9999999999", "9999999999"),
        ("123456789012345", "123456789012345"),
    ],
)
def test_parses_what_clients_send(written: str, digits: str) -> None:
    assert numbers.parse(written) == digits


@pytest.mark.parametrize(
    "written",
    [
        "",
        "+",
        "1234567",
        "1234567890123456",
        "++919999999999",
        "91 9999999999",
        "91-99999999",
        "٩١٩٩٩٩٩٩٩٩٩٩",
        "91999\x009999",
    ],
)
def test_refuses_everything_else(written: str) -> None:
    with pytest.raises(ValueError, match="8 to 15 digits"):
        numbers.parse(written)


@given(st.text())
def test_what_is_parsed_is_8_to_15_ascii_digits(written: str) -> None:
    try:
        digits = numbers.parse(written)
    except ValueError:
        return
    assert 8 <= len(digits) <= 15
    assert set(digits) <= set("0123456789")


def test_masks_the_first_five() -> None:
    assert numbers.mask("919999912345") == "xxxxx9912345"
    assert numbers.mask("12") == "xx"
