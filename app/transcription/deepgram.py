"""Recognition by Deepgram. All channels are sent in one request, because the service recognizes each alone.

Written from the published reference of `POST /v1/listen` (developers.deepgram.com, 2026-11) and tested against a fake
that follows it. No Deepgram account was tried.
"""

import asyncio
from collections import Counter
from typing import Annotated, Any

from pydantic import AnyHttpUrl, BaseModel, Field, FiniteFloat, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription.base import Audio, Recognition, Samples, SpeechRequest, TranscriptionError, Word
from app.transcription.speech_http import SpeechService, valid_words, wav_blocks, wav_size
from app.transcription.vad import detect_speech

_LARGEST_FILE = 2 * 10**9
_TIMEOUT = 1200.0
"""Seconds for the upload and the recognition. The service itself gives up after 10 minutes of recognition."""
_KEYTERM_TOKENS = 500
_MIXED_LANGUAGES = frozenset({"en", "es", "fr", "de", "hi", "ru", "pt", "ja", "it", "nl"})
"""What `language=multi` recognizes in one sentence."""


class DeepgramOptions(Options):
    """With `RINGBACK_RECOGNIZER=deepgram`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_DEEPGRAM_")

    api_key: SecretStr = Field(description="The key of a Deepgram project")
    model: str = Field("nova-3", description="The model to ask for")
    url: AnyHttpUrl = Field(
        AnyHttpUrl("https://api.deepgram.com"),
        description="Base URL. Other regions and self-hosted servers have others",
    )


class _Word(BaseModel):
    word: str
    punctuated_word: str | None = None
    start: FiniteFloat
    end: FiniteFloat


class _Alternative(BaseModel):
    transcript: str = ""
    words: list[_Word] = []


class _Channel(BaseModel):
    alternatives: Annotated[list[_Alternative], Field(min_length=1)]
    detected_language: str | None = None


class _Results(BaseModel):
    channels: list[_Channel]


class _Answer(BaseModel):
    results: _Results


class DeepgramRecognizer:
    """Sends the channels with speech as one WAV file of 16 kHz, with `multichannel=true`. Up to `concurrency`
    recordings are sent at once."""

    def __init__(self, base_url: str, *, api_key: str, model: str = "nova-3", concurrency: int = 1) -> None:
        self.name = f"deepgram {model}"
        self._model = model
        self._turn = asyncio.Semaphore(concurrency)
        self._service = SpeechService(
            "Deepgram",
            f"{base_url.rstrip('/').removesuffix('/v1')}/v1/listen",
            prefix="RINGBACK_DEEPGRAM_",
            headers={"Authorization": f"Token {api_key}"},
            describe=_describe,
            timeout=_TIMEOUT,
        )

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Raises `TranscriptionError`. A recording without speech is not sent."""
        async with self._turn:
            return await self._recognize(audio, request)

    async def aclose(self) -> None:
        await self._service.aclose()

    async def _recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        # Each channel that is sent is paid for, and silence has nothing to recognize.
        spoken = [i for i, channel in enumerate(audio.channels) if await asyncio.to_thread(detect_speech, channel)]
        if not spoken:
            return Recognition(((),) * len(audio.channels), None)
        vocabulary, notes = _vocabulary(self._model, request.vocabulary)
        language = _language(request.languages)
        recognized = dict(zip(spoken, await self._ask(audio, spoken, language, vocabulary), strict=True))
        detected = None
        if language is None:
            detected = _most_spoken(recognized)
            # The service detects a language for each channel. A side that only said "okay" is often taken for another.
            others = [
                i for i, channel in recognized.items() if _code(channel.detected_language) not in (detected, None)
            ]
            if others and detected is not None:
                recognized |= zip(others, await self._ask(audio, others, detected, vocabulary), strict=True)
        channels = tuple(_words(recognized.get(i), audio.duration) for i in range(len(audio.channels)))
        return Recognition(
            channels, next(iter(request.languages), detected) if any(channels) else None, notes=tuple(notes)
        )

    async def _ask(
        self, audio: Audio, which: list[int], language: str | None, vocabulary: list[tuple[str, str]]
    ) -> list[_Channel]:
        sent: tuple[Samples, ...] = tuple(audio.channels[i] for i in which)
        size = wav_size(sent)
        if size > _LARGEST_FILE:
            raise TranscriptionError(
                f"The recording is too large for Deepgram ({size / 1e9:.1f} GB, at most 2): use another recognizer"
            )
        params = [
            ("model", self._model),
            ("smart_format", "true"),
            ("multichannel", "true" if len(sent) > 1 else "false"),
            ("detect_language", "true") if language is None else ("language", language),
            *vocabulary,
        ]
        answer = await self._service.post(
            lambda: wav_blocks(sent), params=params, headers={"Content-Type": "audio/wav", "Content-Length": str(size)}
        )
        try:
            channels = _Answer.model_validate(answer).results.channels
        except ValidationError as error:
            raise self._service.bad_answer() from error
        if len(channels) != len(sent):
            raise self._service.bad_answer()
        return channels


def _language(languages: tuple[str, ...]) -> str | None:
    """Deepgram's language of a request. None: it detects."""
    if len(languages) > 1 and _MIXED_LANGUAGES.issuperset(languages):
        return "multi"
    return languages[0] if languages else None


def _vocabulary(model: str, terms: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
    """Query parameters that prefer these terms, and what to note of terms that were left out. Older models only take
    single words."""
    if not model.startswith("nova-3"):
        return [("keywords", word) for term in terms for word in term.split()][:200], []
    params: list[tuple[str, str]] = []
    budget = _KEYTERM_TOKENS
    for term in terms:
        budget -= len(term.encode()) // 2 + 1  # at least as many tokens as such a term can be expected to have
        if budget < 0:
            return params, [f"Deepgram got the first {len(params)} of {len(terms)} terms of the vocabulary"]
        params.append(("keyterm", term))
    return params, []


def _most_spoken(recognized: dict[int, _Channel]) -> str | None:
    """The language of the most words."""
    count: Counter[str] = Counter()
    for channel in recognized.values():
        if code := _code(channel.detected_language):
            count[code] += len(channel.alternatives[0].words)
    return count.most_common(1)[0][0] if count else None


def _code(language: str | None) -> str | None:
    """ISO 639-1 of `hi`, `en-IN`."""
    code = (language or "").partition("-")[0].casefold()
    return code if len(code) in (2, 3) and code.isascii() and code.isalpha() else None


def _words(channel: _Channel | None, duration: float) -> tuple[Word, ...]:
    if channel is None:
        return ()
    best = channel.alternatives[0]
    if not best.words:
        return valid_words([(best.transcript, 0.0, duration)], duration)
    return valid_words([(word.punctuated_word or word.word, word.start, word.end) for word in best.words], duration)


def _describe(fault: Any) -> tuple[str, str]:
    """Deepgram has two shapes of errors."""
    return str(fault.get("err_code") or fault.get("category") or ""), str(fault.get("err_msg") or fault["message"])
