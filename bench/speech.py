"""What the choice of channels achieves: `make bench-speech`, or `python -m bench.speech`. Takes about ten minutes.

The simulator's conversations and the tests' reference call are mixed as bad recorders mix them, written with µ-law, and
recognized twice: with both channels as they are, and after `app.transcription.channels` has decided. A turn of the
reference is found on a channel if most of its words are there at its time. Lost: found nowhere. Duplicated: found on
two channels. Wrong: found only with the other person, where the transcript names persons.
"""

import argparse
import asyncio
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from app.telephony.simulator import CONVERSATIONS
from app.transcription import models
from app.transcription.audio import load
from app.transcription.base import Audio, Recognition, Recognizer, SpeechRequest
from app.transcription.decoding.recording import read
from app.transcription.whisper import WhisperRecognizer

Sides = npt.NDArray[np.float64]
"""Samples x channels."""
Mixing = Callable[[Sides, int], Sides]
REFERENCE = Path(__file__).parents[1] / "tests/audio/call_callback.wav"
_SPARE_SECONDS = 0.8
_MOST = 0.6


def crosstalk(decibels: float, milliseconds: float) -> Mixing:
    """Each person is also on the other's channel."""

    def mix(sides: Sides, rate: int) -> Sides:
        late = np.roll(sides, round(milliseconds / 1000 * rate), axis=0)
        mixed: Sides = sides + 10 ** (decibels / 20) * late[:, ::-1]
        return mixed

    return mix


def echo(decibels: float, milliseconds: float) -> Mixing:
    """The agent is also on the customer's channel, with the reflections of a room (thirty milliseconds)."""

    def mix(sides: Sides, rate: int) -> Sides:
        decay = np.random.default_rng(1).normal(size=round(0.03 * rate)) * np.exp(
            -np.arange(round(0.03 * rate)) / (0.008 * rate)
        )
        room = np.convolve(sides[:, 0], decay / np.sqrt(np.square(decay).sum()))[: len(sides)]
        mixed = sides.copy()
        mixed[:, 1] += 10 ** (decibels / 20) * np.roll(room, round(milliseconds / 1000 * rate))
        return mixed

    return mix


def same(decibels: float, milliseconds: float) -> Mixing:
    """The mixed call on both channels, one of them at another level and late."""

    def mix(sides: Sides, rate: int) -> Sides:
        mono = sides.sum(axis=1) / 2
        return np.stack([mono, 10 ** (decibels / 20) * np.roll(mono, round(milliseconds / 1000 * rate))], axis=1)

    return mix


MIXINGS: dict[str, Mixing] = {
    "clean": lambda sides, _: sides,
    "crosstalk -15 dB": crosstalk(-15, 0),
    "crosstalk -20 dB, 150 ms": crosstalk(-20, 150),
    "crosstalk -25 dB, 400 ms": crosstalk(-25, 400),
    "echo of the agent -18 dB, 250 ms": echo(-18, 250),
    "one signal": same(0, 0),
    "one signal, -10 dB, 60 ms": same(-10, 60),
}


@dataclass
class Counts:
    """Counts of the reference's turns."""

    turns: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0

    def count(self, reference: list[dict[str, Any]], audio: Audio, recognition: Recognition) -> None:
        for turn in reference:
            roles = [
                role
                for role, words in zip(audio.roles, recognition.channels, strict=True)
                if _is_found(
                    turn,
                    " ".join(word.text for word in words if _is_near(turn, word.start, word.end)),
                    "" if role in (turn["role"], "unknown") else _of_the_other(turn, reference),
                )
            ]
            self.turns += 1
            self.lost += not roles
            self.duplicated += len(roles) > 1
            self.wrong += len(roles) == 1 and roles[0] not in (turn["role"], "unknown")


def _is_near(turn: dict[str, Any], start: float, end: float) -> bool:
    first, last = float(turn["start"]), float(turn["end"])
    return first - _SPARE_SECONDS <= (start + end) / 2 <= last + _SPARE_SECONDS


def _of_the_other(turn: dict[str, Any], reference: list[dict[str, Any]]) -> str:
    """What the other person says at that time. Their own "okay" is not a copy of this one."""
    return " ".join(
        other["content"]
        for other in reference
        if other["role"] != turn["role"]
        and other["end"] > turn["start"] - 2 * _SPARE_SECONDS
        and other["start"] < turn["end"] + 2 * _SPARE_SECONDS
    )


def _is_found(turn: dict[str, Any], text: str, others: str) -> bool:
    wanted, got = Counter(_words(turn["content"])), Counter(_words(text)) - Counter(_words(others))
    return (wanted & got).total() >= _MOST * wanted.total()


def _words(text: str) -> list[str]:
    text = (
        text.lower().replace("eight point five percent", "8.5%").replace("four thirty", "4.30").replace("4:30", "4.30")
    )
    return re.findall(r"[a-z0-9']+", text.replace("430", "4.30"))


async def measure(recognizer: Recognizer, mixing: Mixing, recordings: list[Path]) -> tuple[Counts, Counts]:
    """Counts without and with the choice of channels."""
    before, after = Counts(), Counts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.wav"
        for recording in recordings:
            reference = json.loads(recording.with_suffix(".json").read_text())["turns"]
            sides, rate = soundfile.read(recording)
            soundfile.write(path, mixing(sides, rate).clip(-1, 1), rate, subtype="ULAW")
            raw = Audio(tuple(read(path, "", "").voices[0].line.stored.T))
            before.count(reference, raw, await recognizer.recognize(raw, SpeechRequest(("en",))))
            chosen = await load(path)
            after.count(reference, chosen, await recognizer.recognize(chosen, SpeechRequest(("en",))))
    return before, after


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=models.BUNDLED)
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    arguments = parser.parse_args()
    recognizer = WhisperRecognizer(arguments.model, arguments.models_dir)
    recordings = [path for path in sorted(CONVERSATIONS.glob("*.wav")) if path.stem != "silence"] + [REFERENCE]
    print(f"{arguments.model}, {len(recordings)} calls; lost / duplicated / wrong turns\n")
    print("| mixture | turns | as they are | after the choice |\n|---|---|---|---|")
    for name, mixing in MIXINGS.items():
        before, after = await measure(recognizer, mixing, recordings)
        cells = (f"{counts.lost} / {counts.duplicated} / {counts.wrong}" for counts in (before, after))
        print(f"| {name} | {before.turns} | {' | '.join(cells)} |", flush=True)
    await recognizer.aclose()


if __name__ == "__main__":
    asyncio.run(main())
