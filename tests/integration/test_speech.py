"""Real recognition with the bundled model, without a network."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.telephony.simulator import CONVERSATIONS
from app.transcription import models
from app.transcription.base import SAMPLE_RATE, Audio, SpeechRequest, Transcription, TranscriptionError
from app.transcription.models import ModelError
from app.transcription.pipeline import transcribe
from app.transcription.summary import RulesSummarizer
from app.transcription.whisper import WhisperRecognizer
from tests.word_errors import normalized, word_errors

AUDIO = Path(__file__).parents[1] / "audio"
REFERENCE = json.loads((AUDIO / "call_callback.json").read_text())
SECONDS = np.arange(15 * SAMPLE_RATE) / SAMPLE_RATE


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> WhisperRecognizer:
    return WhisperRecognizer(models.BUNDLED, tmp_path_factory.mktemp("models"))


async def made_of(recognizer: WhisperRecognizer, path: Path) -> Transcription:
    return await transcribe(path, recognizer=recognizer, summarizer=RulesSummarizer(), language=None)


def test_word_errors_are_counted() -> None:
    assert word_errors(["a", "b", "c", "d"], ["a", "x", "d"]) == 0.5
    assert normalized("At 8.5%!") == normalized("at eight point five percent")


async def test_the_reference_call(recognizer: WhisperRecognizer) -> None:
    made = await made_of(recognizer, AUDIO / "call_callback.wav")
    assert [turn.role for turn in made.turns] == [turn["role"] for turn in REFERENCE["turns"]]
    assert len(made.turns) == 12
    for recognized, said in zip(made.turns, REFERENCE["turns"], strict=True):
        assert abs(recognized.start - said["start"]) < 1
        assert abs(recognized.end - said["end"]) < 1
    for side in ("agent", "customer"):
        expected = normalized(" ".join(turn["content"] for turn in REFERENCE["turns"] if turn["role"] == side))
        heard_words = normalized(" ".join(turn.content for turn in made.turns if turn.role == side))
        errors = word_errors(expected, heard_words)
        print(f"{side}: WER {errors:.1%}")
        assert errors <= 0.15
    assert made.digest.outcome == "Callback requested"
    assert made.language == "en"
    assert "call me back tomorrow" in made.digest.summary


@pytest.mark.parametrize("recording", sorted(CONVERSATIONS.glob("*.wav")), ids=lambda path: path.stem)
async def test_the_simulators_conversations(recognizer: WhisperRecognizer, recording: Path) -> None:
    about = json.loads(recording.with_suffix(".json").read_text())
    made = await made_of(recognizer, recording)
    assert made.digest.outcome == about["expected_outcome"]
    assert made.duration == pytest.approx(about["duration"], abs=0.1)
    expected = normalized(" ".join(turn["content"] for turn in about["turns"]))
    recognized = normalized(" ".join(turn.content for turn in made.turns))
    assert not expected or len(recognized) >= len(expected) / 2


def tone(*frequencies: int, on: float, off: float) -> np.ndarray:
    sounding = SECONDS % (on + off) < on
    return 0.3 * sounding * sum(np.sin(2 * np.pi * frequency * SECONDS) for frequency in frequencies) / len(frequencies)


NOISE = np.random.default_rng(7)
WORDLESS = {
    "silence": np.zeros(len(SECONDS)),
    "faint noise": NOISE.normal(0, 0.002, len(SECONDS)),
    "loud noise": NOISE.normal(0, 0.2, len(SECONDS)),
    "ringback in India": tone(400, 450, on=0.4, off=0.2),
    "ringback in America": tone(440, 480, on=2, off=4),
    "busy tone": tone(480, 620, on=0.5, off=0.5),
    "a chord on hold": tone(262, 330, 392, on=1.5, off=0.1),
}


@pytest.mark.parametrize("sound", WORDLESS)
async def test_what_is_no_speech_makes_no_words(recognizer: WhisperRecognizer, sound: str) -> None:
    channel = (WORDLESS[sound].clip(-1, 1) * 32767).astype(np.int16)
    recognition = await recognizer.recognize(Audio((channel, channel)), SpeechRequest())
    assert recognition.channels == ((), ())
    assert recognition.language is None


async def test_speech_without_what_lies_below_300_hz_is_heard(recognizer: WhisperRecognizer, tmp_path: Path) -> None:
    """Many trunks carry nothing below."""
    samples, rate = soundfile.read(CONVERSATIONS / "callback.wav")
    spectrum = np.fft.rfft(samples, axis=0)
    spectrum[: round(300 * len(samples) / rate)] = 0
    soundfile.write(tmp_path / "cut.wav", np.fft.irfft(spectrum, len(samples), axis=0), rate)
    assert (await made_of(recognizer, tmp_path / "cut.wav")).digest.outcome == "Callback requested"


async def test_a_mono_recording_has_turns_without_roles(recognizer: WhisperRecognizer, tmp_path: Path) -> None:
    samples, rate = soundfile.read(CONVERSATIONS / "wrong_number.wav")
    soundfile.write(tmp_path / "mono.flac", samples.mean(axis=1), rate)
    made = await made_of(recognizer, tmp_path / "mono.flac")
    assert {turn.role for turn in made.turns} == {"unknown"}
    assert made.digest.outcome == "Wrong number"


async def test_crosstalk_is_transcribed_once_by_whoever_spoke(recognizer: WhisperRecognizer, tmp_path: Path) -> None:
    """A conversation of four turns. Each person is also on the other's channel, 150 ms late."""
    samples, rate = soundfile.read(CONVERSATIONS / "do_not_call.wav")
    late = np.pad(samples, ((round(0.15 * rate), 0), (0, 0)))[: len(samples)]
    soundfile.write(tmp_path / "crosstalk.wav", samples + 0.15 * late[:, ::-1], rate)
    made = await made_of(recognizer, tmp_path / "crosstalk.wav")
    assert [turn.role for turn in made.turns] == ["agent", "customer", "agent"]
    assert sum("take my number off" in turn.content for turn in made.turns) == 1
    assert made.digest.outcome == "Do not call"
    assert any("agent's voice on the customer's channel" in note for note in made.notes)


async def test_a_silent_recording_says_so(recognizer: WhisperRecognizer) -> None:
    made = await made_of(recognizer, CONVERSATIONS / "silence.wav")
    assert made.turns == ()
    assert "silent" in made.digest.summary


def test_models(tmp_path: Path) -> None:
    bundled = models.resolve(models.BUNDLED, tmp_path)
    models.verify(models.BUNDLED, tmp_path)
    assert models.resolve(str(bundled), tmp_path) == bundled, "any folder that holds one"
    with pytest.raises(ModelError, match=r"ringback models fetch large-v3.*copy the folder"):
        models.resolve("large-v3", tmp_path)
    listed = {model.name: model.state for model in models.list_models(tmp_path)}
    assert listed[models.BUNDLED] == "bundled"
    assert listed["large-v3"] == "not fetched"


def test_a_damaged_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.bin").write_bytes(b"weights")
    with pytest.raises(ModelError, match="nothing to verify it against"):
        models.verify("mine", tmp_path)
    (tmp_path / "mine" / "ringback-manifest.json").write_text(json.dumps({"model.bin": "0" * 64}))
    with pytest.raises(ModelError, match="is damaged"):
        models.verify("mine", tmp_path)


async def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.bin").write_bytes(b"weights")
    recognizer = WhisperRecognizer("mine", tmp_path)
    with pytest.raises(TranscriptionError, match="cannot be loaded"):
        await recognizer.recognize(Audio((np.zeros(16000, np.int16),), ("unknown",)), SpeechRequest())
    await recognizer.aclose()
