"""The IndicConformer engine, on a tiny model with the same files. The real weights were not run."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from app.transcription.base import SAMPLE_RATE, Audio, Recognizer, Samples, SpeechRequest, TranscriptionError
from app.transcription.indic_conformer import IndicConformerRecognizer, decode
from app.transcription.log_mel import BANDS, log_mel, mel_filters
from tests.onnx_model import write_model
from tests.recognizer_contract import HINDI, RecognizerContract, check_times


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny-conformer")


@pytest.fixture
async def recognizer(model: Path) -> AsyncIterator[Recognizer]:
    recognizer = IndicConformerRecognizer(model)
    yield recognizer
    await recognizer.aclose()


class TestIndicConformer(RecognizerContract):
    """On real speech, of which the tiny model makes some words."""


def sound(lowest: float, highest: float, seconds: float) -> Samples:
    """Noise between two frequencies."""
    noise = np.random.default_rng(1).normal(0, 3000, int(seconds * SAMPLE_RATE))
    spectrum, frequencies = np.fft.rfft(noise), np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    spectrum[(frequencies < lowest) | (frequencies > highest)] = 0
    return np.asarray(np.fft.irfft(spectrum), np.int16)


@pytest.fixture
def sounds(monkeypatch: pytest.MonkeyPatch) -> Audio:
    """After a second of silence: a low sound, silence, and a high sound, of one second each. For the VAD, it is
    speech."""
    second = np.zeros(SAMPLE_RATE, np.int16)
    channel = np.concatenate([second, sound(0, 2500, 1), second, sound(3500, 8000, 1)])
    monkeypatch.setattr("app.transcription.pieces.detect_speech", lambda channel: [(SAMPLE_RATE, len(channel))])
    return Audio((channel,), ("unknown",))


@pytest.mark.parametrize(
    ("languages", "spoken", "said"),
    [
        ((), "hi", [" नी", " ऊपर"]),
        (("hi", "en"), "hi", [" नी", " ऊपर"]),
        (("ta",), "ta", [" கீழ்", " மேல்"]),
    ],
)
async def test_words_of_the_language_with_times(
    recognizer: Recognizer, sounds: Audio, languages: tuple[str, ...], spoken: str, said: list[str]
) -> None:
    recognition = await recognizer.recognize(sounds, SpeechRequest(languages))
    check_times(recognition, sounds)
    (words,) = recognition.channels
    assert [word.text for word in words] == said
    assert recognition.language == spoken
    low, high = words
    assert low.start == pytest.approx(1, abs=0.1)
    assert low.end == pytest.approx(2, abs=0.2)
    assert high.start == pytest.approx(3, abs=0.2)
    assert high.end == pytest.approx(4, abs=0.1)


async def test_the_language_of_calls_without_one(model: Path, sounds: Audio) -> None:
    recognizer = IndicConformerRecognizer(model, language="ta")
    assert (await recognizer.recognize(sounds, SpeechRequest())).language == "ta"
    await recognizer.aclose()


async def test_a_language_that_the_model_does_not_know(recognizer: Recognizer, sounds: Audio) -> None:
    with pytest.raises(TranscriptionError, match="does not recognize English") as failed:
        await recognizer.recognize(sounds, SpeechRequest(("en",)))
    assert not failed.value.retryable


async def failure(folder: Path) -> str:
    recognizer = IndicConformerRecognizer(folder)
    with pytest.raises(TranscriptionError) as failed:
        await recognizer.recognize(Audio((sound(0, 2500, 2),), ("unknown",)), HINDI)
    await recognizer.aclose()
    assert not failed.value.retryable
    return failed.value.reason


async def test_a_folder_without_a_model(tmp_path: Path, model: Path) -> None:
    assert "RINGBACK_INDICCONFORMER_MODEL" in await failure(tmp_path / "nowhere")
    (model / "assets/ctc_decoder.onnx").unlink()
    assert "ctc_decoder.onnx is missing" in await failure(model)


@pytest.mark.parametrize("file", ["encoder.onnx", "vocab.json", "language_masks.json"])
async def test_a_damaged_model(model: Path, file: str) -> None:
    (model / "assets" / file).write_bytes(b"\x00\x01damaged")
    assert "cannot be loaded" in await failure(model)


async def test_another_model_of_the_same_names(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "other", rename_input="features")
    assert "is no IndicConformer" in await failure(folder)


@pytest.mark.parametrize(
    ("file", "content"), [("vocab.json", '{"hi": ["a"]}'), ("vocab.json", "{}"), ("language_masks.json", "{}")]
)
async def test_parts_that_do_not_fit_together(model: Path, file: str, content: str) -> None:
    (model / "assets" / file).write_text(content)
    assert "do not fit together" in await failure(model)


async def test_masks_that_are_longer_than_the_output(model: Path, sounds: Audio) -> None:
    masks = model / "assets/language_masks.json"
    masks.write_text(masks.read_text().replace("true]", "false, true]"))
    assert "do not fit together" in await failure(model)


# Decoding


def scores(*best: int, width: int = 5) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    rows = np.full((len(best), width), -5, np.float32)
    rows[range(len(best)), best] = -0.1
    return rows


TOKENS = ("<unk>", "▁म", "े", "▁है")


@pytest.mark.parametrize(
    ("best", "words"),
    [
        ((4, 4, 4), []),
        ((1, 1, 2, 2), [("मे", 0, 4)]),
        ((4, 1, 4, 2, 3, 3), [("मे", 1, 4), ("है", 4, 6)]),
        ((1, 4, 1), [("म", 0, 1), ("म", 2, 3)]),
        ((2, 2, 3), [("े", 0, 2), ("है", 2, 3)]),
        ((0, 0, 1), [("म", 2, 3)]),
    ],
)
def test_greedy_decoding(best: tuple[int, ...], words: list[tuple[str, int, int]]) -> None:
    assert decode(scores(*best), TOKENS) == words


def test_nothing_to_decode() -> None:
    assert decode(np.zeros((0, 5), np.float32), TOKENS) == []


# Features


def test_mel_bands_are_those_of_other_implementations() -> None:
    theirs = FeatureExtractor.get_mel_filters(SAMPLE_RATE, 512, BANDS)
    np.testing.assert_allclose(mel_filters(), theirs, atol=1e-6)


def test_features_have_a_column_every_10_ms_and_are_normalized() -> None:
    noise = np.asarray(np.random.default_rng(1).normal(0, 900, SAMPLE_RATE), np.int16)
    features = log_mel(noise)
    assert features.shape == (BANDS, 101)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=1, ddof=1), 1, atol=1e-3)


@pytest.mark.parametrize("samples", [0, 1, 160, 512, 513])
def test_features_of_very_short_audio(samples: int) -> None:
    features = log_mel(np.full(samples, 7, np.int16))
    assert np.isfinite(features).all()
    assert features.shape[1] >= 2
