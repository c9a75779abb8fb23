"""Outcomes of a user's own."""

import pytest

from app import outcome_sets
from app.options import SettingsError
from app.transcription.base import Role, SpokenTurn
from app.transcription.outcome import DETAILS, OUTCOMES, classify_outcome
from app.transcription.outcome_set import DEFAULT, OutcomeSet, OwnOutcome, classify_own
from app.transcription.summary import LocalSummarizer

FILE = """
[[outcome]]
name = "Wants a test drive"
description = "The customer wants to drive the car before buying"
examples = ["Can I drive it once before I decide?", "test drive kab mil sakti hai"]

[[outcome]]
name = "Wants exchange"
description = "The customer asks what the old car is worth"
examples = ["What will you give for my old car?", "purani gaadi ka kitna milega"]

[[outcome]]
name = "Other"
default = true

[[field]]
name = "callback time"
description = "When the customer wants to be called"
"""


def turns(*said: str) -> tuple[SpokenTurn, ...]:
    roles: tuple[Role, Role] = ("agent", "customer")
    return tuple(SpokenTurn(roles[place % 2], text, place * 3.0, place * 3.0 + 2) for place, text in enumerate(said))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("I would like to take it for a drive first, then I will tell you.", "Wants a test drive"),
        ("Pehle test drive karwa do.", "Wants a test drive"),
        ("My present car is six years old, how much do I get for that one?", "Wants exchange"),
        ("My dog is sleeping on the sofa.", "Other"),
    ],
)
def test_the_nearest_example_decides(answer: str, outcome: str) -> None:
    found = classify_own(turns("Hello sir, calling from the showroom.", answer), outcome_sets.parse(FILE))
    assert found.outcome == outcome
    assert 0 <= found.certainty <= 1


async def test_the_summarizer_answers_the_users_own_outcome() -> None:
    said = turns("Hello sir, calling from the showroom.", "Can I drive it once?")
    digest = await LocalSummarizer().digest(said, language="en", duration=9, wanted=outcome_sets.parse(FILE))
    assert digest.outcome == "Wants a test drive"
    empty = await LocalSummarizer().digest((), language=None, duration=9, wanted=outcome_sets.parse(FILE))
    assert empty.outcome == "No conversation"


def test_the_default_set_answers_the_words_that_clients_know() -> None:
    paying = classify_outcome(turns("Your instalment is overdue.", "Yes, I will pay it on Friday after my salary."))
    assert DEFAULT.answered(paying) == "Connected"
    assert OutcomeSet(detailed=True).answered(paying) == "Payment promised"
    assert set(DETAILS.values()) <= set(OUTCOMES)
    assert OutcomeSet(outcomes=(OwnOutcome("A"),)).fallback == "Connected"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "There is no"),
        ("[[outcome]", "no TOML"),
        ('[[outcome]]\ndescription = "no name"', "outcome.0.name"),
        ('[[outcome]]\nname = "A"\n[[outcome]]\nname = "A"', "twice"),
        ('[[outcome]]\nname = "A"\ndefault = true\n[[outcome]]\nname = "B"\ndefault = true', "Only one"),
        ('[[outcome]]\nname = "A"\ncolour = "red"', "outcome.0.colour"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        outcome_sets.parse(text)
