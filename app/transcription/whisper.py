"""Local recognition with faster-whisper. Nothing leaves the machine."""

import asyncio
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription import fitness, models
from app.transcription.base import Audio, Recognition, Samples, SpeechRequest, TranscriptionError
from app.transcription.languages import name_of
from app.transcription.windows import Window, detect_utterances, pack

_SURE = 0.5
"""A language that is less probable than this is not detected."""
_CERTAIN = 0.8
"""A language that is more probable than this contradicts what the client said."""
_LITTLE_SECONDS = 3.0
"""With less speech, as of two people who only say hello, a language must be that certain, too."""
_DOUBTFUL = -0.6
"""Words that are less probable on average (natural logarithm) may be of another language. Hindi on an English-only
model has -1.0 to -1.2, English on a clear line -0.2 to -0.4."""

if TYPE_CHECKING:  # importing it takes 0.4 s, and only a transcripts worker needs it
    from faster_whisper.transcribe import Segment

    from app.transcription.whisper_model import DetectingModel

OfUnusable = Literal["fail", "warn"]


class WhisperOptions(Options):
    """With `RINGBACK_RECOGNIZER=whisper`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_WHISPER_")

    model: str = Field(models.BUNDLED, description="Model name, or a folder that holds a model")
    device: str = Field("cpu", description="`cpu`, `cuda` or `auto`")
    threads: int = Field(1, ge=1, description="CPU threads of one recognition")
    unusable_language: OfUnusable = Field(
        "fail",
        description="What becomes of a call in a language of which the model makes no usable text: `fail`, or "
        "`warn` for a transcript whose summary begins with a warning",
    )


class WhisperRecognizer:
    """One model, loaded when it is first needed. It recognizes up to `concurrency` recordings at once, with `threads`
    threads each.

    A model that only knows English cannot detect a language. If its words are doubtful, the bundled multilingual model
    does it.
    """

    def __init__(
        self,
        model: str,
        models_dir: Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        concurrency: int = 1,
        of_unusable: OfUnusable = "fail",
    ) -> None:
        self.name = f"whisper {model}"
        self._model_name = model
        self._models_dir = models_dir
        self._device = device
        self._threads = threads
        self._concurrency = concurrency
        self._of_unusable = of_unusable
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="whisper")
        self._loading = asyncio.Lock()
        self._loaded: dict[str, DetectingModel] = {}

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Runs in a thread. The recognizer releases Python's lock, so leases are renewed meanwhile."""
        loop = asyncio.get_running_loop()
        model = await self._get(self._model_name)
        detector = model if model.model.is_multilingual else await self._get(models.BUNDLED)

        def recognize() -> Recognition:
            return _Call(audio, model, detector, self._model_name, self._of_unusable).recognize(request)

        return await loop.run_in_executor(self._executor, recognize)

    async def aclose(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._loaded.clear()

    def loaded(self, name: str) -> "DetectingModel":
        """A model that was already used."""
        return self._loaded[name]

    async def _get(self, name: str) -> "DetectingModel":
        loop = asyncio.get_running_loop()
        async with self._loading:
            if name not in self._loaded:
                self._loaded[name] = await loop.run_in_executor(self._executor, self._load, name)
        return self._loaded[name]

    def _load(self, name: str) -> "DetectingModel":
        from app.transcription.whisper_model import DetectingModel

        folder = models.resolve(name, self._models_dir)
        try:
            return DetectingModel(
                str(folder or name),
                device=self._device,
                compute_type="int8" if self._device == "cpu" else "default",
                cpu_threads=self._threads,
                num_workers=self._concurrency,
                local_files_only=True,
                files=None if folder else models.files_of(name),
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise TranscriptionError(f"The speech model in {folder or name} cannot be loaded: {error}") from error


@dataclass(frozen=True, slots=True)
class Detected:
    """A detected language and how probable it is, from 0 to 1."""

    language: str
    probability: float


class _Call:
    """One recording while it is recognized, in a thread."""

    def __init__(
        self,
        audio: Audio,
        model: "DetectingModel",
        detector: "DetectingModel",
        model_name: str,
        of_unusable: OfUnusable,
    ) -> None:
        self._audio = audio
        self._model = model
        self._detector = detector
        self._name = model_name
        self._of_unusable = of_unusable
        self._windows = [pack(detect_utterances(channel)) for channel in audio.channels]

    def recognize(self, request: SpeechRequest) -> Recognition:
        try:
            return self._recognize(request)
        finally:
            self._detector.forget()

    def _recognize(self, request: SpeechRequest) -> Recognition:
        if not any(self._windows):
            return Recognition(tuple(() for _ in self._windows), None)
        # A model that cannot detect the language is asked first, because its doubts say enough and cost nothing.
        can_wait = self._detector is not self._model and (not request.languages or "en" in request.languages)
        language, notes = ("en", ()) if can_wait else self._choose(request)
        warning = self._warning(language)
        found = [
            [(window, segment) for window in windows for segment in self._segments(channel, window, language, request)]
            for channel, windows in zip(self._audio.channels, self._windows, strict=True)
        ]
        if can_wait and _are_doubtful([segment for channel in found for _, segment in channel]):
            language, notes = self._choose(request)
            warning = self._warning(language)
        words = tuple(
            tuple(
                window.word(word.word, float(word.start), float(word.end))
                for window, segment in channel
                for word in segment.words or ()
                if word.word.strip()
            )
            for channel in found
        )
        return Recognition(words, language if any(words) else None, warning, notes)

    def _segments(self, channel: Samples, window: Window, language: str, request: SpeechRequest) -> "list[Segment]":
        segments, _ = self._model.transcribe(
            window.sound(channel),
            language=language if language in self._model.supported_languages else "en",
            beam_size=5,
            temperature=[0.0, 0.2, 0.4],
            compression_ratio_threshold=2.4,
            condition_on_previous_text=False,
            word_timestamps=True,
            hotwords=", ".join(request.vocabulary) or None,
            vad_filter=False,  # detect_utterances has done it
        )
        return [segment for segment in segments if not _made_up(segment)]

    def _choose(self, request: SpeechRequest) -> tuple[str, tuple[str, ...]]:
        """The language that is spoken, and notes for the call's history."""
        asked = request.languages
        guess = self._detect(among=asked)
        if len(asked) == 1:  # the client knows it, unless something else is clearly spoken
            if guess.language == asked[0] or guess.probability < _CERTAIN:
                return asked[0], ()
            note = f"{name_of(asked[0])} was expected, but {name_of(guess.language)} is spoken"
            return guess.language, (note,)
        little = sum(window.seconds for windows in self._windows for window in windows) < _LITTLE_SECONDS
        if guess.probability >= (_CERTAIN if little else _SURE):
            return guess.language, ()
        likely = next((one for one in (*asked, "en") if not fitness.why_unusable(self._name, one)), "en")
        note = (
            f"The language could not be detected: at best {name_of(guess.language)} ({guess.probability:.0%}). "
            f"{name_of(likely)} was assumed"
        )
        return likely, (note,)

    def _warning(self, language: str) -> str | None:
        """Why the words will be wrong. Raises `TranscriptionError` unless warnings are wanted instead."""
        reason = fitness.why_unusable(self._name, language)
        if reason is None and language not in self._model.supported_languages:
            reason = f"the model {self._name} does not know {name_of(language)}"
        if reason is None:
            return None
        if self._of_unusable == "warn":
            return f"The words below are probably wrong: the call is in {name_of(language)}, and {reason}."
        raise TranscriptionError(
            f"The call is in {name_of(language)}, and {reason}. Use another model (`ringback models list`, `ringback "
            "models fetch NAME`, then RINGBACK_WHISPER_MODEL) or a speech endpoint (docs/speech.md). Then retry the "
            "transcript"
        )

    def _detect(self, among: tuple[str, ...]) -> Detected:
        """One detection for the call, on the first window of each side, or of the longer one where detection is extra.

        `among`: the language is one of these if they are more probable than all others. Urdu counts as Hindi if Hindi
        is among them, because the two are one spoken language.
        """
        sides = zip(self._audio.channels, self._windows, strict=True)
        firsts = sorted(
            ((windows[0], channel) for channel, windows in sides if windows), key=lambda one: -one[0].seconds
        )
        if self._detector is not self._model:
            firsts = firsts[:1]
        found: dict[str, float] = defaultdict(float)
        for window, channel in firsts:
            for language, probability in self._detector.language_probabilities(window.sound(channel)).items():
                found[language] += window.seconds * probability
        seconds = sum(window.seconds for window, _ in firsts)
        if "hi" in among:
            found["hi"] += found.pop("ur", 0.0)
        wanted = math.fsum(found[language] for language in among)
        candidates = among if wanted >= _SURE * seconds else tuple(found)
        language = max(candidates, key=lambda one: found[one])
        return Detected(language, max(wanted if candidates is among else 0.0, found[language]) / seconds)


def _are_doubtful(segments: "list[Segment]") -> bool:
    """Whether the words may be of another language than the model knows."""
    seconds = sum(segment.end - segment.start for segment in segments)
    weighted = sum(segment.avg_logprob * (segment.end - segment.start) for segment in segments)
    return bool(weighted < _DOUBTFUL * seconds)


def _made_up(segment: "Segment") -> bool:
    """Whether Whisper invented the words: it detected no speech, and is unsure of the words."""
    return bool(segment.no_speech_prob > 0.6 and segment.avg_logprob < -1.0)
