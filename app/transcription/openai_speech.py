"""Recognition by any endpoint that speaks OpenAI's `/v1/audio/transcriptions`."""

import asyncio
import io
from typing import Any

import aiohttp
from pydantic import AnyHttpUrl, BaseModel, Field, FiniteFloat, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, Samples, SpeechRequest, Word
from app.transcription.speech_http import SpeechService, valid_words, wav_bytes
from app.transcription.vad import detect_speech


class SpeechOptions(Options):
    """With `RINGBACK_RECOGNIZER=openai`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_SPEECH_")

    url: AnyHttpUrl = Field(description="Base URL of an OpenAI-compatible speech endpoint")
    api_key: SecretStr | None = Field(None, description="Its key")
    model: str = Field("whisper-1", description="The model to ask for")


class _Piece(BaseModel):
    start: FiniteFloat
    end: FiniteFloat
    word: str | None = None
    text: str | None = None


class _Answer(BaseModel):
    """The `verbose_json` format. Endpoints fill different parts of it."""

    text: str = ""
    language: str | None = None
    words: list[_Piece] | None = None
    segments: list[_Piece] | None = None


class OpenAIRecognizer:
    """Sends each channel alone, as 16-bit WAV. Up to `concurrency` recordings are sent at once. `base_url` may end with
    `/v1`."""

    def __init__(self, base_url: str, *, model: str, api_key: str | None = None, concurrency: int = 1) -> None:
        self.name = f"openai {model}"
        self._model = model
        self._service = SpeechService(
            "The speech endpoint",
            f"{base_url.rstrip('/').removesuffix('/v1')}/v1/audio/transcriptions",
            prefix="RINGBACK_SPEECH_",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            describe=_describe,
            spent=frozenset({"insufficient_quota"}),
            attempts=1,
        )
        self._turn = asyncio.Semaphore(concurrency)

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        async with self._turn:
            return await self._recognize(audio, request)

    async def _recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        spoken = request.languages[0] if request.languages else None
        channels: list[tuple[Word, ...]] = []
        for channel in audio.channels:
            # These engines invent words in silence, so a channel without speech is not sent.
            if not await asyncio.to_thread(detect_speech, channel):
                channels.append(())
                continue
            answer = await self._ask(channel, spoken, request.vocabulary)
            spoken = spoken or _code(answer.language)
            channels.append(_words(answer, len(channel) / SAMPLE_RATE))
        return Recognition(tuple(channels), spoken if any(channels) else None)

    async def aclose(self) -> None:
        await self._service.aclose()

    async def _ask(self, channel: Samples, language: str | None, vocabulary: tuple[str, ...]) -> _Answer:
        content = await wav_bytes(channel)

        def make_body() -> aiohttp.FormData:
            form = aiohttp.FormData()
            form.add_field("file", io.BytesIO(content), filename="channel.wav", content_type="audio/wav")
            form.add_field("model", self._model)
            form.add_field("response_format", "verbose_json")
            form.add_field("timestamp_granularities[]", "word")
            form.add_field("timestamp_granularities[]", "segment")
            if language is not None:
                form.add_field("language", language)
            if vocabulary:
                form.add_field("prompt", ", ".join(vocabulary))
            return form

        answer = await self._service.post(make_body)
        try:
            read = _Answer.model_validate(answer)
        except ValidationError as error:
            raise self._service.bad_answer() from error
        if not read.model_fields_set & {"text", "words", "segments"}:
            raise self._service.bad_answer()
        return read


def _words(answer: _Answer, duration: float) -> tuple[Word, ...]:
    """Words with times. Without words, the segments. Without segments, the whole text."""
    if answer.words:
        return valid_words([(piece.word or "", piece.start, piece.end) for piece in answer.words], duration)
    if answer.segments:
        return valid_words([(piece.text or "", piece.start, piece.end) for piece in answer.segments], duration)
    return valid_words([(answer.text, 0.0, duration)], duration)


def _describe(fault: Any) -> tuple[str, str]:
    return str(fault["error"].get("code") or ""), str(fault["error"]["message"])


def _code(language: Any) -> str | None:
    """OpenAI says "english", other endpoints "en"."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    if language in _LANGUAGE_CODES:
        return str(language)
    return {"english": "en", "hindi": "hi"}.get(str(language).lower())
