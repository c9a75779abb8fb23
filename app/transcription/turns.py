"""From words on channels to turns in time order. Pure."""

from itertools import pairwise

from app.transcription.base import Recognition, Role, SpokenTurn, Word

PAUSE_SECONDS = 0.6
"""A longer silence of one person ends a piece, so that what the other person says goes between."""
HOLD_SECONDS = 5.0
"""After a longer silence of both, the same person begins another turn. So a hold is not counted as speech."""
ANSWER_SECONDS = 1.0
"""If only one side is known, a longer silence ends a turn, and so does any pause after a sentence: another person may
have answered."""


def make_turns(recognition: Recognition, roles: tuple[Role, ...]) -> tuple[SpokenTurn, ...]:
    """Make turns of words. `roles`: who speaks on each channel, or `unknown`."""
    pieces = [
        piece
        for role, words in zip(roles, recognition.channels, strict=True)
        for piece in _pieces(role, sorted(words, key=lambda word: word.start))
    ]
    pieces.sort(key=lambda piece: (piece.start, piece.end))
    return _joined(pieces)


def _pieces(role: Role, words: list[Word]) -> list[SpokenTurn]:
    """One person's words, split at pauses."""
    groups: list[list[Word]] = [words[:1]] if words else []
    for before, word in pairwise(words):
        if word.start - before.end > PAUSE_SECONDS:
            groups.append([])
        groups[-1].append(word)
    return [
        SpokenTurn(role, _text(group), round(group[0].start, 2), round(max(word.end for word in group), 2))
        for group in groups
        if _text(group)
    ]


def _text(words: list[Word]) -> str:
    return " ".join("".join(word.text for word in words).split())


def _joined(pieces: list[SpokenTurn]) -> tuple[SpokenTurn, ...]:
    """Join neighbours of one role without a long silence. The pieces are sorted, so nobody spoke between them."""
    both_are_known = {"agent", "customer"} <= {piece.role for piece in pieces}
    turns: list[SpokenTurn] = []
    for piece in pieces:
        longest = HOLD_SECONDS if both_are_known else ANSWER_SECONDS
        if turns and not both_are_known and turns[-1].content.endswith((".", "?", "!", "।")):
            longest = 0.0
        if turns and turns[-1].role == piece.role and piece.start - turns[-1].end <= longest:
            last = turns.pop()
            text, end = f"{last.content} {piece.content}", max(last.end, piece.end)
            spoken = round(last.spoken_seconds + piece.spoken_seconds, 2)
            piece = SpokenTurn(piece.role, text, last.start, end, spoken)
        turns.append(piece)
    return tuple(turns)
