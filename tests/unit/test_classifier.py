"""The outcome classifier: how good it is on dialogues that it was not trained on, and what it was trained on."""

import json
from pathlib import Path

import pytest

from app.transcription.base import SpokenTurn
from app.transcription.classifier import head
from app.transcription.outcome import OUTCOMES, UNSURE, classify_outcome
from app.transcription.romanize import gloss, romanize, words
from tools.outcome import corpus, train

UNSEEN = json.loads((Path(__file__).parent / "dialogues.json").read_text())
HELD_OUT = Path(corpus.__file__).parent / "held_out.txt"


def held_out() -> list[tuple[str, tuple[SpokenTurn, ...]]]:
    found = []
    for line in HELD_OUT.read_text().splitlines():
        outcome, _, said = line.partition(": ")
        turns = said.split(" | ")
        found.append(
            (
                outcome,
                tuple(SpokenTurn("agent" if n % 2 == 0 else "customer", t, n, n + 1) for n, t in enumerate(turns)),
            )
        )
    return found


def test_dialogues_that_it_never_saw() -> None:
    right = 0
    for dialogue in UNSEEN:
        turns = tuple(SpokenTurn(turn["role"], turn["content"], 0, 1) for turn in dialogue["turns"])
        found = classify_outcome(turns)
        assert found.outcome in OUTCOMES
        right += found.outcome == dialogue["expected_outcome"]
    assert right / len(UNSEEN) >= 0.9


def test_dialogues_by_another_hand() -> None:
    right = [classify_outcome(turns).outcome == outcome for outcome, turns in held_out()]
    assert sum(right) / len(right) >= 0.85


def test_nothing_unseen_is_in_the_corpus() -> None:
    sentences = {turn.content for one in corpus.dialogues(copies=1, seed=train.SEED) for turn in one.turns}
    customers = {turn["content"] for one in UNSEEN for turn in one["turns"] if turn["role"] == "customer"}
    assert not {said for said in sentences & customers if len(said.split()) > 6}


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


def test_what_is_unsure_is_connected() -> None:
    found = classify_outcome((SpokenTurn("customer", "Blue seven paper rain, the window.", 0, 1),))
    assert found.outcome == "Connected"
    assert found.certainty > 0
    assert UNSURE < 0.5
