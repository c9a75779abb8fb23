"""Words on channels become turns in time order. Pure."""

from itertools import pairwise

from app.transcription.base import Recognition, Role, SpokenTurn, Word

PAUSE_SECONDS = 1.0
"""A longer silence of one side ends a piece; what the other side says in it then comes between."""


def make_turns(recognition: Recognition, roles: tuple[Role, ...]) -> tuple[SpokenTurn, ...]:
    """`roles`: who speaks on each channel. Where nobody can say, this does not guess."""
    pieces = [
        piece
        for role, words in zip(roles, recognition.channels, strict=True)
        for piece in _pieces(role, sorted(words, key=lambda word: word.start))
    ]
    pieces.sort(key=lambda piece: (piece.start, piece.end))
    return _joined(pieces)


def _pieces(role: Role, words: list[Word]) -> list[SpokenTurn]:
    """One side's words, split at its pauses."""
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
    """Only after sorting: neighbours of one role that nobody came between are one turn."""
    turns: list[SpokenTurn] = []
    for piece in pieces:
        if turns and turns[-1].role == piece.role:
            last = turns.pop()
            piece = SpokenTurn(piece.role, f"{last.content} {piece.content}", last.start, max(last.end, piece.end))
        turns.append(piece)
    return tuple(turns)
