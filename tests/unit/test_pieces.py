"""How channels are cut for engines that take only short audio."""

from itertools import pairwise

import numpy as np
import pytest

from app.transcription.base import SAMPLE_RATE
from app.transcription.pieces import cut_into_pieces


def test_pieces_are_short_enough_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        0: [(0.0, 4.0), (4.5, 9.0), (11.0, 12.0), (20.0, 47.5), (48.0, 50.0)],
        1: [(9.5, 10.5), (60.0, 125.0)],
    }
    channels = tuple(np.full(16, i, np.int16) for i in seconds)
    spans = {i: [(int(a * SAMPLE_RATE), int(b * SAMPLE_RATE)) for a, b in said] for i, said in seconds.items()}
    monkeypatch.setattr("app.transcription.pieces.detect_speech", lambda channel: spans[int(channel[0])])
    pieces = cut_into_pieces(channels, longest_seconds=29)
    shown = [(piece.channel, piece.first / SAMPLE_RATE, piece.last / SAMPLE_RATE) for piece in pieces]
    assert shown == [
        (0, 0.0, 9.0),  # a pause of half a second does not end it
        (1, 9.5, 10.5),
        (0, 11.0, 12.0),  # the other one spoke between
        (0, 20.0, 47.5),
        (0, 48.0, 50.0),  # it would be too long
        (1, 60.0, 89.0),
        (1, 89.0, 118.0),
        (1, 118.0, 125.0),
    ]
    assert all(before.first <= after.first for before, after in pairwise(pieces))
