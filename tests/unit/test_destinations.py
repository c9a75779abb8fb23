"""Which numbers may be dialed."""

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.destinations import find_refusal, read_destinations
from app.numbers import PhoneNumber

BAD = {
    "premium rate": ("19005551234", "449098790000", "449011234567", "49900123456", "33892123456",
                     "390899123456", "34803123456", "61190123456", "819900123456"),
    "shared cost": ("9118604251234", "448431234567", "448710123456", "491801234567", "33820123456", "34901234567",
                    "39848123456"),
    "personal": ("447012345678", "447045678901", "18005550100"),
    "satellite and international": ("870773111632", "881612345678", "881631234567", "8821612345678", "8821334567890",
                                    "883510012345678", "87812345678901", "979123456789", "80812345678", "88812345678"),
    "islands that look like home": ("18765551234", "12425551234", "18095551234", "12645551234", "14415551234",
                                    "17845551234", "18685551234", "12684605551", "14735551234", "17675551234"),
    "countries known for fraud": ("2521234567", "37127123456", "2204123456", "22470123456", "2318812345678",
                                  "23276123456", "5352123456", "96012345678", "9607712345", "67577712345",
                                  "3706121234", "6859012345", "23562123456"),
    "neighbors": ("447400123456", "12025550143", "971501234567", "9779841234567", "8801812345678", "923001234567"),
    "no number at all": ("99999999999", "21012345678", "19765551234"),
    "toll-free": ("9118001234567",),
}  # fmt: skip


def test_there_are_sixty() -> None:
    assert len({number for numbers in BAD.values() for number in numbers}) >= 60


@pytest.mark.parametrize("number", [number for numbers in BAD.values() for number in numbers])
def test_bad_destinations_are_refused_where_only_the_home_country_is_allowed(number: str) -> None:
    refusal = find_refusal(PhoneNumber(number), ("IN",))
    assert refusal is not None
    assert refusal.startswith(("is ", "belongs "))


@pytest.mark.parametrize("kind", [PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.UAN])
def test_what_is_made_to_cost_much_is_never_allowed(kind: int) -> None:
    """In any country, whatever is on the list."""
    examples = [phonenumbers.example_number_for_type(region, kind) for region in phonenumbers.SUPPORTED_REGIONS]
    found = [example for example in examples if example is not None and phonenumbers.number_type(example) == kind]
    assert len(found) > 20
    for example in found:
        number = PhoneNumber(phonenumbers.format_number(example, PhoneNumberFormat.E164).removeprefix("+"))
        if len(number.digits) < 8:  # Norway's short ones can be ordered nowhere
            continue
        allowed = (f"+{number.digits[:4]}", str(phonenumbers.region_code_for_number(example)))
        assert find_refusal(number, allowed), number


@pytest.mark.parametrize("number", BAD["satellite and international"])
def test_satellites_are_never_allowed(number: str) -> None:
    assert find_refusal(PhoneNumber(number), (f"+{number[:4]}", "IN"))


@pytest.mark.parametrize(
    ("number", "allowed"),
    [
        ("919876543210", ("IN",)),
        ("912226543210", ("IN",)),
        ("911140000001", ("IN",)),
        ("447400123456", ("IN", "GB")),
        ("12025550143", ("US",)),
        ("971501234567", ("IN", "+97150")),
        ("9118001234567", ("IN", "+911800")),
    ],
)
def test_good_destinations(number: str, allowed: tuple[str, ...]) -> None:
    assert find_refusal(PhoneNumber(number), allowed) is None


def test_a_prefix_allows_no_other_numbers_of_its_country() -> None:
    assert "AE" in str(find_refusal(PhoneNumber("971561234567"), ("IN", "+97150")))
    assert "only none" in str(find_refusal(PhoneNumber("919876543210"), ()))


def test_a_list_is_read_in_any_spelling() -> None:
    assert read_destinations(" in, GB +97150,,in ") == ("IN", "GB", "+97150")
    assert read_destinations("") == ()
    for wrong in ("India", "XX", "9140", "+", "+0", "IN;GB", "+१२"):
        with pytest.raises(ValueError, match="neither the ISO code"):
            read_destinations(wrong)
