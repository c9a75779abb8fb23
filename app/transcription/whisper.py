"""Local recognition with faster-whisper. Nothing leaves the machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription import models
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, Samples, SpeechRequest, TranscriptionError, Word
from app.transcription.turns import PAUSE_SECONDS
from app.transcription.vad import LONGEST_SECONDS, as_float, detect_speech

_DETECTED_IN_SECONDS = 120
"""The language is detected in this many seconds of speech."""


if TYPE_CHECKING:  # importing it takes 0.4 s, and only a transcripts worker needs it
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment


class WhisperOptions(Options):
    """With `RINGBACK_RECOGNIZER=whisper`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_WHISPER_")

    model: str = Field("tiny.en", description="Model name, or a folder that holds a model")
    device: str = Field("cpu", description="`cpu`, `cuda` or `auto`")
    threads: int = Field(1, ge=1, description="CPU threads of one recognition")


class WhisperRecognizer:
    """One model, loaded when it is first needed. It recognizes up to `concurrency` recordings at once, with `threads`
    threads each."""

    def __init__(
        self, model: str, models_dir: Path, *, device: str = "cpu", threads: int = 1, concurrency: int = 1
    ) -> None:
        self.name = f"whisper {model}"
        self._model_name = model
        self._models_dir = models_dir
        self._device = device
        self._threads = threads
        self._concurrency = concurrency
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="whisper")
        self._loading = asyncio.Lock()
        self._model: WhisperModel | None = None

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Runs in a thread. The recognizer releases Python's lock, so leases are renewed meanwhile."""
        loop = asyncio.get_running_loop()
        async with self._loading:
            if self._model is None:
                self._model = await loop.run_in_executor(self._executor, self._load)
        return await loop.run_in_executor(
            self._executor, _recognize, self._model, audio, next(iter(request.languages), None)
        )

    async def aclose(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._model = None

    def _load(self) -> "WhisperModel":
        from faster_whisper import WhisperModel

        folder = models.resolve(self._model_name, self._models_dir)
        try:
            return WhisperModel(
                str(folder),
                device=self._device,
                compute_type="int8" if self._device == "cpu" else "default",
                cpu_threads=self._threads,
                num_workers=self._concurrency,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise TranscriptionError(f"The speech model in {folder} cannot be loaded: {error}") from error


def _recognize(model: "WhisperModel", audio: Audio, language: str | None) -> Recognition:
    utterances = tuple(_utterances(channel) for channel in audio.channels)
    spoken = _choose_language(model, audio, utterances, language)
    channels = tuple(
        _words(model, channel, said, spoken) for channel, said in zip(audio.channels, utterances, strict=True)
    )
    return Recognition(channels, spoken if any(channels) else None)


def _choose_language(
    model: "WhisperModel", audio: Audio, utterances: tuple[list[tuple[int, int]], ...], asked: str | None
) -> str:
    """The requested language if the model knows it. Otherwise it is detected once, from the speech of all sides, and
    never per segment."""
    if not model.model.is_multilingual:
        return "en"
    if asked is not None and asked in model.supported_languages:
        return asked
    said = sorted((first, last, channel) for channel, spans in enumerate(utterances) for first, last in spans)
    pooled = [np.zeros(SAMPLE_RATE, np.float32)]
    seconds = 0.0
    for first, last, channel in said:
        pooled.append(as_float(audio.channels[channel][first:last]))
        seconds += (last - first) / SAMPLE_RATE
        if seconds > _DETECTED_IN_SECONDS:
            break
    detected, _, _ = model.detect_language(np.concatenate(pooled), language_detection_segments=4)
    return str(detected)


def _words(
    model: "WhisperModel", channel: Samples, utterances: list[tuple[int, int]], language: str
) -> tuple[Word, ...]:
    words: list[Word] = []
    for first, last in utterances:
        segments, _ = model.transcribe(
            as_float(channel[first:last]),
            language=language,
            beam_size=5,
            temperature=[0.0, 0.2, 0.4],
            compression_ratio_threshold=2.4,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,  # _utterances has done it
        )
        offset = first / SAMPLE_RATE
        words += [
            Word(word.word, offset + float(word.start), offset + float(word.end))
            for segment in segments
            if not _made_up(segment)
            for word in segment.words or ()
            if word.word.strip()
        ]
    return tuple(words)


def _utterances(channel: Samples) -> list[tuple[int, int]]:
    """Ranges of samples in which somebody speaks without a long pause.

    Each is recognized alone. faster-whisper's own VAD filter joins all speech of half a minute. Then it sometimes drops
    a short "okay" or the rest, and puts words on the wrong side of a pause.
    """
    joined: list[tuple[int, int]] = []
    for first, last in detect_speech(channel):
        if joined:
            begun, until = joined[-1]
            if first - until < PAUSE_SECONDS * SAMPLE_RATE and last - begun < LONGEST_SECONDS * SAMPLE_RATE:
                joined[-1] = (begun, last)
                continue
        joined.append((first, last))
    return joined


def _made_up(segment: "Segment") -> bool:
    """Whether Whisper invented the words: it detected no speech, and is unsure of the words."""
    return bool(segment.no_speech_prob > 0.6 and segment.avg_logprob < -1.0)
