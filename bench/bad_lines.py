"""What telephone lines do to a call.

Each takes a call's samples, their rate and its turns, and gives the spoiled ones.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

Sides = npt.NDArray[np.float64]
"""Samples x channels: agent, customer. Between -1 and 1."""
Turns = list[dict[str, Any]]
Line = Callable[[Sides, int, Turns], tuple[Sides, Turns]]


def codec(subtype: str) -> Line:
    """Each channel through this codec of libsndfile's."""

    def spoil(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
        coded = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "coded.wav"
            for side in sides.T:
                soundfile.write(path, side, rate, subtype=subtype)
                coded.append(soundfile.read(path)[0][: len(sides)])
        return np.stack(coded, axis=1), turns

    return spoil


def loss(share: float) -> Line:
    """This share of packets of 20 ms is lost, each channel by itself."""

    def spoil(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
        random, packet = np.random.default_rng(5), rate // 50
        spoiled = sides.copy()
        for column in range(sides.shape[1]):
            for start in range(0, len(sides), packet):
                if random.random() < share:
                    spoiled[start : start + packet, column] = 0
        return spoiled, turns

    return spoil


def noise(decibels: float) -> Line:
    """White noise on both channels, this far below the speech."""

    def spoil(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
        speech = np.sqrt(np.mean(np.square(sides[np.abs(sides) > 0.02])))
        random = np.random.default_rng(3)
        return sides + random.normal(0, speech * 10 ** (-decibels / 20), sides.shape), turns

    return spoil


def crosstalk(decibels: float, milliseconds: float = 0) -> Line:
    """Each person is also on the other's channel."""

    def spoil(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
        late = np.roll(sides, round(milliseconds / 1000 * rate), axis=0)
        return sides + 10 ** (decibels / 20) * late[:, ::-1], turns

    return spoil


def quieter(decibels: float) -> Line:
    """Both channels are quieter."""
    return lambda sides, _, turns: (sides * 10 ** (-decibels / 20), turns)


def silent_customer(sides: Sides, _: int, turns: Turns) -> tuple[Sides, Turns]:
    """The customer's channel was not recorded."""
    return sides * [1, 0], [turn for turn in turns if turn["role"] == "agent"]


def hold_music(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
    """Then the customer is on hold for 20 s: three chords and a melody."""
    seconds = np.arange(20 * rate) / rate
    chords = [(262, 330, 392), (220, 262, 330), (196, 247, 294)]
    melody = [523, 494, 440, 392, 440, 494]
    music = np.zeros(len(seconds))
    for at in range(len(chords)):
        here = (seconds // 2 % len(chords)) == at
        music[here] = sum(np.sin(2 * np.pi * tone * seconds[here]) for tone in chords[at]) / 12
    notes = np.array(melody)[(seconds * 3).astype(int) % len(melody)]
    music += 0.15 * np.sin(2 * np.pi * np.cumsum(notes) / rate)
    quiet = np.zeros(len(music))
    return np.concatenate([sides, np.stack([quiet, music], axis=1)]), turns


def ringback(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
    """Six seconds of India's ringing tone come first, on both channels."""
    seconds = np.arange(6 * rate) / rate
    sounding = ((seconds % 3 < 0.4) | ((seconds % 3 >= 0.6) & (seconds % 3 < 1.0))).astype(float)
    tone = 0.3 * sounding * np.sin(2 * np.pi * 400 * seconds) * (1 + 0.5 * np.sin(2 * np.pi * 25 * seconds)) / 1.5
    later = [{**turn, "start": turn["start"] + 6, "end": turn["end"] + 6} for turn in turns]
    return np.concatenate([np.stack([tone, tone], axis=1), sides]), later


def echo(decibels: float, milliseconds: float) -> Line:
    """Each person's own voice comes back on the other's channel, with the reflections of a room (30 ms)."""

    def spoil(sides: Sides, rate: int, turns: Turns) -> tuple[Sides, Turns]:
        taps = round(0.03 * rate)
        room = np.random.default_rng(1).normal(size=taps) * np.exp(-np.arange(taps) / (0.008 * rate))
        room /= np.sqrt(np.square(room).sum())
        spoiled = sides.copy()
        for own, other in ((0, 1), (1, 0)):
            back = np.convolve(sides[:, own], room)[: len(sides)]
            spoiled[:, other] += 10 ** (decibels / 20) * np.roll(back, round(milliseconds / 1000 * rate))
        return spoiled, turns

    return spoil


LINES: dict[str, Line] = {
    "clean": lambda sides, _, turns: (sides, turns),
    "µ-law": codec("ULAW"),
    "GSM": codec("GSM610"),
    "3 % of packets lost": loss(0.03),
    "noise at 15 dB": noise(15),
    "noise at 10 dB": noise(10),
    "crosstalk -20 dB": crosstalk(-20),
    "crosstalk -15 dB, 150 ms": crosstalk(-15, 150),
    "echo -15 dB, 300 ms": echo(-15, 300),
    "20 dB quieter": quieter(20),
    "30 dB quieter": quieter(30),
    "customer silent": silent_customer,
    "hold music": hold_music,
    "ringback": ringback,
}
