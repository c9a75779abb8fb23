"""Real recognition with the bundled model, without a network."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.telephony.simulator import CONVERSATIONS
from app.transcription import bundled, models
from app.transcription.audio import load
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, SpeechRequest, Transcription, TranscriptionError
from app.transcription.models import ModelError
from app.transcription.pipeline import transcribe
from app.transcription.summary import LocalSummarizer
from app.transcription.turns import make_turns
from app.transcription.whisper import WhisperRecognizer
from tests.word_errors import normalized, word_errors

AUDIO = Path(__file__).parents[1] / "audio"
REFERENCE = json.loads((AUDIO / "call_callback.json").read_text())
SECONDS = np.arange(15 * SAMPLE_RATE) / SAMPLE_RATE


Recognizers = Callable[..., WhisperRecognizer]


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> Recognizers:
    """Makes a recognizer by its model and options, once for all tests."""
    folder = tmp_path_factory.mktemp("models")
    return cache(lambda model, **options: WhisperRecognizer(model, folder, **options))


@pytest.fixture(scope="module")
def recognizer(recognizers: Recognizers) -> WhisperRecognizer:
    return recognizers(models.BUNDLED)


async def made_of(recognizer: WhisperRecognizer, path: Path) -> Transcription:
    return await transcribe(path, recognizer=recognizer, summarizer=LocalSummarizer(), language=None)


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


async def test_indian_english_and_the_names_of_a_vocabulary(recognizer: WhisperRecognizer) -> None:
    audio = await load(AUDIO / "indian_english.wav")
    said = json.loads((AUDIO / "indian_english.json").read_text())["turns"]
    names = SpeechRequest(("hi", "en"), ("Arvind Menon", "Greenfield Homes"))
    without = await recognizer.recognize(audio, SpeechRequest(("hi", "en")))
    assert without.language == "en"
    assert [turn.role for turn in make_turns(without, audio.roles)] == [turn["role"] for turn in said]
    assert "Arvind Menon" not in text_of(without)
    assert "Arvind Menon" in text_of(await recognizer.recognize(audio, names))


def text_of(recognition: Recognition) -> str:
    return "".join(word.text for channel in recognition.channels for word in channel)


@pytest.mark.parametrize("model", ["base", "tiny.en"])
@pytest.mark.parametrize("asked", [(), ("hi",), ("hi", "en"), ("en",)], ids=lambda asked: "-".join(asked) or "none")
async def test_hindi_is_never_made_up(model: str, asked: tuple[str, ...], recognizers: Recognizers) -> None:
    """Neither model can write Hindi. Without the check, `tiny.en` gives English sentences that nobody said."""
    with pytest.raises(TranscriptionError, match=r"in Hindi.*models fetch.*speech endpoint") as failed:
        await recognizers(model).recognize(await load(AUDIO / "hindi.wav"), SpeechRequest(asked))
    assert not failed.value.retryable


async def test_hindi_with_a_warning_where_that_is_wanted(recognizers: Recognizers) -> None:
    made = await transcribe(
        AUDIO / "hindi.wav",
        recognizer=recognizers("base", of_unusable="warn"),
        summarizer=LocalSummarizer(),
        language="hi-en",
    )
    assert made.digest.summary.startswith(
        "The words below are probably wrong: the call is in Hindi, and the model base"
    )
    assert made.language == "hi"


async def test_a_client_that_is_wrong_about_the_language(recognizer: WhisperRecognizer) -> None:
    audio = await load(CONVERSATIONS / "not_interested.wav")
    recognition = await recognizer.recognize(audio, SpeechRequest(("hi",)))
    assert recognition.language == "en"
    assert recognition.notes == ("Hindi was expected, but English is spoken",)


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


async def test_a_line_that_is_too_quiet_loses_no_words(recognizer: WhisperRecognizer, tmp_path: Path) -> None:
    """Its pauses are digital silence, after which the VAD misses the first words."""
    samples, rate = soundfile.read(AUDIO / "call_callback.wav")
    soundfile.write(tmp_path / "quiet.wav", samples * 0.1, rate, subtype="PCM_16")
    made = await made_of(recognizer, tmp_path / "quiet.wav")
    assert [turn.role for turn in made.turns] == [turn["role"] for turn in REFERENCE["turns"]]
    assert made.turns[0].content.startswith("Hello")
    assert "no problem" in made.turns[8].content.lower()


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


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_the_bundled_models(name: str, tmp_path: Path) -> None:
    assert models.resolve(name, tmp_path) is None
    models.verify(name, tmp_path)
    files = models.files_of(name)
    assert {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"} <= set(files)
    listed = {model.name: model for model in models.list_models(tmp_path)}
    assert listed[name].state == "bundled"
    assert abs(listed[name].size_bytes - sum(map(len, files.values()))) < 10_000


def test_models_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ringback models fetch large-v3.*copy the folder"):
        models.resolve("large-v3", tmp_path)
    assert {model.name: model.state for model in models.list_models(tmp_path)}["large-v3"] == "not fetched"
    for folder in ("base", "large-v3", "somebody--whisper"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.bin").write_bytes(b"weights")
    assert models.resolve("base", tmp_path) == tmp_path / "base", "what was fetched comes before what is bundled"
    assert models.resolve("large-v3", tmp_path) == tmp_path / "large-v3"
    assert models.resolve("somebody/whisper", tmp_path) == tmp_path / "somebody--whisper"
    assert models.resolve(str(tmp_path / "base"), Path("/nowhere")) == tmp_path / "base", "any folder that holds one"


def test_a_bundled_model_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    monkeypatch.setattr(bundled, "folders", lambda name: [tmp_path])
    with pytest.raises(ModelError, match="install again"):
        models.files_of("tiny.en")


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
