from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.transcription.base import Recognition, Role, SpokenTurn, Word
from app.transcription.turns import ANSWER_SECONDS, HOLD_SECONDS, make_turns

SIDES: tuple[Role, ...] = ("agent", "customer")


def words(*said: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(f" {text}", start, end) for text, start, end in said)


def test_what_the_other_says_in_a_pause_comes_between() -> None:
    agent = words(("One", 0, 0.4), ("two.", 0.5, 1), ("Three.", 4, 5))
    customer = words(("Okay.", 2, 2.5))
    assert make_turns(Recognition((agent, customer), "en"), SIDES) == (
        SpokenTurn("agent", "One two.", 0, 1),
        SpokenTurn("customer", "Okay.", 2, 2.5),
        SpokenTurn("agent", "Three.", 4, 5),
    )


def test_neighbours_of_one_role_are_one_turn() -> None:
    agent, customer = words(("Hello?", 0, 1), ("Hello?", 5, 6)), words(("Yes.", 7, 8))
    turn, _ = make_turns(Recognition((agent, customer), "en"), SIDES)
    assert turn == SpokenTurn("agent", "Hello? Hello?", 0, 6)
    assert turn.spoken_seconds == 2, "the pause does not count"


def test_of_one_side_alone_a_pause_may_be_the_others_answer() -> None:
    agent = words(("Are you there?", 0, 1), ("Good.", 1.7, 2), ("I", 5, 5.2), ("see.", 6, 6.2), ("Bye.", 8, 9))
    turns = make_turns(Recognition((agent, ()), "en"), SIDES)
    assert [turn.content for turn in turns] == ["Are you there?", "Good.", "I see.", "Bye."]


def test_a_hold_is_not_part_of_a_turn() -> None:
    agent = words(("Please hold.", 0, 2), ("Thank you for holding.", 47, 49))
    turns = make_turns(Recognition((agent, ()), "en"), SIDES)
    assert [(turn.start, turn.end) for turn in turns] == [(0, 2), (47, 49)]


def test_overlap_keeps_the_order_of_starts() -> None:
    turns = make_turns(Recognition((words(("Long", 0, 5)), words(("Yes", 1, 1.2))), "en"), SIDES)
    assert [turn.role for turn in turns] == ["agent", "customer"]


def test_one_channel_has_no_roles() -> None:
    assert make_turns(Recognition((words(("Hello.", 0, 1), ("Hi.", 3, 4)),), "en"), ("unknown",)) == (
        SpokenTurn("unknown", "Hello.", 0, 1),
        SpokenTurn("unknown", "Hi.", 3, 4),
    )


def test_words_join_as_the_engine_spaced_them() -> None:
    rate = (Word(" 8", 0, 1), Word(".5", 1, 2), Word("%", 2, 3), Word(" fine", 3, 4))
    assert make_turns(Recognition((rate, ()), "en"), SIDES)[0].content == "8.5% fine"


def test_silence_is_no_turn() -> None:
    assert make_turns(Recognition(((), ()), None), SIDES) == ()
    assert make_turns(Recognition(((Word("  ", 0, 1),), ()), None), SIDES) == ()


side = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0.01, 5), st.sampled_from(["yes", "no", "well"])).map(
        lambda said: Word(f" {said[2]}", said[0], said[0] + said[1])
    ),
    max_size=12,
).map(tuple)


@given(side, side)
def test_no_word_is_lost_and_turns_alternate_unless_there_was_a_hold(
    agent: tuple[Word, ...], customer: tuple[Word, ...]
) -> None:
    turns = make_turns(Recognition((agent, customer), "en"), SIDES)
    assert [turn.start for turn in turns] == sorted(turn.start for turn in turns)
    longest = HOLD_SECONDS if agent and customer else ANSWER_SECONDS
    assert all(before.role != after.role or after.start - before.end > longest for before, after in pairwise(turns))
    for role, said in (("agent", agent), ("customer", customer)):
        recognized = sorted(word for turn in turns if turn.role == role for word in turn.content.split())
        assert recognized == sorted(word.text.strip() for word in said)
