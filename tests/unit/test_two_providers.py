"""The judge of a chaos run over two providers sees what must not happen."""

from datetime import UTC, datetime, timedelta

from bench.two_providers import FIRST, SECOND, SECOND_DID, PlacedLeg, find_violations, most_at_once

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_call_at_the_other_provider_is_a_violation() -> None:
    legs = [PlacedLeg("call_a", SECOND, NOON), PlacedLeg("call_b", FIRST, NOON)]
    assert not find_violations(legs, {"call_a": SECOND_DID, "call_b": None}, most=4, limit=4)
    (of_the_first,) = find_violations(legs, {"call_a": None, "call_b": None}, most=4, limit=4)
    assert "call_a was placed at second" in of_the_first
    (of_the_second,) = find_violations(legs, {"call_a": SECOND_DID, "call_b": SECOND_DID}, most=4, limit=4)
    assert "call_b was placed at environment" in of_the_second


def test_a_customer_at_the_other_provider_is_a_violation() -> None:
    legs = [PlacedLeg("call_a", SECOND, NOON), PlacedLeg("call_a", FIRST, NOON, is_agent=False)]
    assert len(find_violations(legs, {"call_a": SECOND_DID}, most=1, limit=1)) == 1


def test_one_call_more_than_the_limit_is_a_violation() -> None:
    assert find_violations([], {}, most=5, limit=4)
    assert not find_violations([], {}, most=4, limit=4)


def test_calls_are_up_together_only_while_they_overlap() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([(at(0), at(2)), (at(2), at(4))]) == 1
    assert most_at_once([(at(0), at(9)), (at(1), at(3)), (at(2), at(4)), (at(5), at(6))]) == 3
