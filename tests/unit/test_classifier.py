"""The outcome classifier: how good it is on dialogues that it was not trained on, and what it was trained on."""

from collections.abc import Callable, Iterator

import pytest

from app.transcription import outcome
from app.transcription.base import SpokenTurn
from app.transcription.classifier import head
from app.transcription.outcome import classify_outcome
from app.transcription.romanize import gloss, romanize, words
from tools.outcome import corpus, measure, train


@pytest.mark.parametrize("dialogues", [measure.unseen, measure.held_out])
def test_dialogues_that_it_was_not_trained_on(dialogues: Callable[[], Iterator[measure.Expected]]) -> None:
    right = [classify_outcome(turns).outcome == expected for expected, turns in dialogues()]
    assert sum(right) / len(right) >= 0.85


def test_nothing_unseen_is_in_the_corpus() -> None:
    sentences = {turn.content for one in train.dialogues() for turn in one.turns}
    unseen = {turn.content for _, turns in measure.unseen() for turn in turns if turn.role == "customer"}
    assert not {said for said in sentences & unseen if len(said.split()) > 6}


def test_the_committed_head_was_made_from_the_committed_corpus() -> None:
    assert head().meta["corpus"] == train.digest(train.dialogues()), "run `python -m tools.outcome.train`"
    assert head().meta["seed"] == train.SEED


def test_the_corpus_is_the_same_each_time() -> None:
    assert corpus.dialogues(copies=1, seed=1)[::50] == corpus.dialogues(copies=1, seed=1)[::50]


@pytest.mark.parametrize(
    ("hindi", "romanised"),
    [("मुझे नहीं चाहिए", "mujhe nahin chahiye"), ("गलत है", "galat hai"), ("बाद में", "baad men")],
)
def test_both_scripts_are_one_spelling(hindi: str, romanised: str) -> None:
    assert words(hindi)[:2] == words(romanised)[:2]
    assert romanize(hindi).isascii()


def test_english_is_left_as_it_is() -> None:
    assert gloss("Don't call me, the number is busy.") == "don't call me , the number is busy ."
    assert gloss("mujhe nahi chahiye") == "me not want"


def test_what_is_unsure_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (SpokenTurn("agent", "Are you interested?", 0, 1), SpokenTurn("customer", "Yes, very much.", 1, 2))
    assert classify_outcome(said).outcome == outcome.INTERESTED
    monkeypatch.setattr(outcome, "UNSURE", 1.1)
    found = classify_outcome(said)
    assert found.outcome == outcome.CONNECTED
    assert 0 < found.certainty < 1
