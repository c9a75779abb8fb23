"""What bad lines do to a transcript, and what a minute of speech costs: `make bench-speech`. Takes about 15 minutes.

`python -m bench.speech lines` spoils calls as telephone lines do, and recognizes each twice: with both channels as they
are, and after the product has leveled them and decided who speaks on which. It prints the word error rate of each side,
the turns that are on both sides, and the words at times when nobody speaks.

`python -m bench.speech cost` compares, for each model at hand and in one run, the product with the engine alone: its
own call for each channel, with its VAD filter. It prints CPU seconds per minute of call, the real-time factor of one
thread, and how many minutes of calls a core can transcribe in an hour.
"""

import argparse
import asyncio
import json
import resource
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import soundfile

from app.transcription import models
from app.transcription.audio import load
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, SpeechRequest
from app.transcription.decoding.recording import read
from app.transcription.vad import as_float
from app.transcription.whisper import WhisperRecognizer
from bench.bad_lines import LINES, Line, Sides
from tests.word_errors import count_errors, normalized

AUDIO = Path(__file__).parents[1] / "tests/audio"
CALLS = ("call_callback", "indian_english", "long_pauses")
_SPARE_SECONDS = 0.8
_MOST = 0.6
_ENGLISH = SpeechRequest(("en",))


@dataclass
class Score:
    """Sums over calls. Errors and words by side."""

    errors: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    invented: int = 0

    def count(self, turns: list[dict[str, Any]], audio: Audio, recognition: Recognition) -> None:
        sides = dict(zip(audio.roles, recognition.channels, strict=True))
        for role in ("agent", "customer"):
            expected = normalized(" ".join(turn["content"] for turn in turns if turn["role"] == role))
            got = normalized("".join(word.text for word in sides.get(role, ())))
            self.errors[role] += count_errors(expected, got)
            self.words[role] += len(expected)
        every = [word for words in recognition.channels for word in words]
        self.invented += sum(not any(_is_near(turn, word.start, word.end) for turn in turns) for word in every)
        for turn in turns:
            found = [role for role, words in sides.items() if _is_said(turn, turns, role, words)]
            self.twice += len(found) > 1

    def __str__(self) -> str:
        rates = (
            f"{self.errors[role] / self.words[role]:.0%}" if self.words[role] else f"{self.errors[role]} words"
            for role in ("agent", "customer")
        )
        return f"{' / '.join(rates)} | {self.twice} | {self.invented}"


def _is_near(turn: dict[str, Any], start: float, end: float) -> bool:
    first, last = float(turn["start"]), float(turn["end"])
    return first - _SPARE_SECONDS <= (start + end) / 2 <= last + _SPARE_SECONDS


def _is_said(turn: dict[str, Any], turns: list[dict[str, Any]], role: str, words: Any) -> bool:
    """Whether most words of the turn are on this person's side at its time, not counting what this person says then."""
    wanted = Counter(normalized(turn["content"]))
    got = Counter(normalized("".join(word.text for word in words if _is_near(turn, word.start, word.end))))
    if role != turn["role"]:
        near = [
            other["content"]
            for other in turns
            if other["role"] == role
            and other["end"] > turn["start"] - 2 * _SPARE_SECONDS
            and other["start"] < turn["end"] + 2 * _SPARE_SECONDS
        ]
        got -= Counter(normalized(" ".join(near)))
    return (wanted & got).total() >= _MOST * wanted.total()


def call(name: str) -> tuple[Sides, int, list[dict[str, Any]]]:
    """A call: samples, their rate, turns. `long_pauses`: the first one with 6 s of silence before each turn."""
    if name == "long_pauses":
        sides, rate, turns = call("call_callback")
        cuts = [0, *(round((turn["start"] - 0.2) * rate) for turn in turns if turn["content"] != "Okay."), len(sides)]
        pause = np.zeros((6 * rate, 2))
        pieces = [piece for first, last in pairwise(cuts) for piece in (pause, sides[first:last])]
        moved = [
            {**turn, **{at: turn[at] + 6 * sum(cut <= turn["start"] * rate for cut in cuts) for at in ("start", "end")}}
            for turn in turns
        ]
        return np.concatenate(pieces), rate, moved
    sides, rate = soundfile.read(AUDIO / f"{name}.wav")
    return sides, rate, json.loads((AUDIO / f"{name}.json").read_text())["turns"]


async def spoil(recognizer: WhisperRecognizer, line: Line, names: tuple[str, ...]) -> tuple[Score, Score]:
    """Scores without and with what the product does before recognition."""
    plain, product = Score(), Score()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoiled.wav"
        for name in names:
            sides, rate, turns = call(name)
            spoiled, turns = line(sides, rate, turns)
            soundfile.write(path, spoiled.clip(-1, 1), rate, subtype="PCM_16")
            raw = Audio(tuple(read(path, "", "").voices[0].line.stored.T))
            plain.count(turns, raw, await recognizer.recognize(raw, _ENGLISH))
            chosen = await load(path)
            product.count(turns, chosen, await recognizer.recognize(chosen, _ENGLISH))
    return plain, product


async def lines(model: str, models_dir: Path) -> None:
    """Print the table of bad lines."""
    recognizer = WhisperRecognizer(model, models_dir)
    print(
        f"\n{model}, {' and '.join(CALLS[:2])}: word error rate agent / customer, turns on both sides, words invented\n"
    )
    print(
        "| line | as it is: WER | twice | invented | product: WER | twice | invented |\n|---|---|---|---|---|---|---|"
    )
    for name, line in LINES.items():
        plain, product = await spoil(recognizer, line, CALLS[:2])
        print(f"| {name} | {plain} | {product} |", flush=True)
    await recognizer.aclose()


async def cost(names: list[str], models_dir: Path) -> None:
    """Print the table of costs."""
    print("\n| model | call | CPU s/min alone | product | ratio | RTF | WER alone | WER product ", end="")
    print("| min of calls/core h | MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model in names:
        recognizer = WhisperRecognizer(model, models_dir)
        for name in (*CALLS, "ten minutes"):
            sides, rate, turns = call(CALLS[0] if name == "ten minutes" else name)
            if name == "ten minutes":
                length = len(sides) / rate
                times = round(600 / length)
                sides = np.tile(sides, (times, 1))
                turns = [
                    {**turn, "start": turn["start"] + at * length, "end": turn["end"] + at * length}
                    for at in range(times)
                    for turn in turns
                ]
            with tempfile.TemporaryDirectory() as folder:
                soundfile.write(path := Path(folder) / "call.wav", sides, rate, subtype="ULAW")
                audio = await load(path)
            minutes = audio.duration / 60
            await recognizer.recognize(Audio((audio.channels[0][: 5 * SAMPLE_RATE],), ("unknown",)), _ENGLISH)  # load
            began = process_time()
            alone = Recognition(tuple(_alone(recognizer, model, channel) for channel in audio.channels), "en")
            middle = process_time()
            ours = await recognizer.recognize(audio, _ENGLISH)
            ended = process_time()
            scores = Score(), Score()
            for score, recognition in zip(scores, (alone, ours), strict=True):
                score.count(turns, audio, recognition)
            rates = (f"{score.errors.total() / score.words.total():.1%}" for score in scores)
            cpu, most = (ended - middle) / minutes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            ratio = (ended - middle) / (middle - began)
            print(
                f"| {model} | {name}, {minutes:.1f} min | {(middle - began) / minutes:.1f} | {cpu:.1f} | {ratio:.2f} "
                f"| {cpu / 60:.2f} | {' | '.join(rates)} | {3600 / cpu:.0f} | {most:.0f} |",
                flush=True,
            )
        await recognizer.aclose()


def _alone(recognizer: WhisperRecognizer, model: str, channel: Any) -> tuple[Any, ...]:
    """The engine's own way, with the settings of ours where it has them."""
    segments, _ = recognizer.loaded(model).transcribe(
        as_float(channel),
        language="en",
        beam_size=5,
        temperature=[0.0, 0.2, 0.4],
        compression_ratio_threshold=2.4,
        condition_on_previous_text=False,
        word_timestamps=True,
        vad_filter=True,
        vad_parameters={
            "threshold": 0.3,
            "min_speech_duration_ms": 100,
            "min_silence_duration_ms": 400,
            "speech_pad_ms": 200,
        },
    )
    return tuple(_Said(word.word, word.start, word.end) for segment in segments for word in segment.words or ())


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    start: float
    end: float


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["lines", "cost"])
    parser.add_argument("--model", action="append", help="May be given several times. Default: the bundled ones")
    parser.add_argument("--models-dir", type=Path, default=Path("var/models"))
    arguments = parser.parse_args()
    names = arguments.model or ["base", "tiny.en"]
    if arguments.part != "lines":
        await cost(names, arguments.models_dir)
    if arguments.part != "cost":
        await lines(names[0] if arguments.model else models.BUNDLED, arguments.models_dir)


if __name__ == "__main__":
    asyncio.run(main())
