"""Recognition by any endpoint that speaks OpenAI's `/v1/audio/transcriptions`."""

import asyncio
import io
import wave
from typing import Any

import aiohttp
from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, Samples, SpeechRequest, TranscriptionError, Word
from app.transcription.vad import detect_speech

_TIMEOUT = aiohttp.ClientTimeout(total=600, connect=10)


class SpeechOptions(Options):
    """With `RINGBACK_RECOGNIZER=openai`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_SPEECH_")

    url: AnyHttpUrl = Field(description="Base URL of an OpenAI-compatible speech endpoint")
    api_key: SecretStr | None = Field(None, description="Its key")
    model: str = Field("whisper-1", description="The model to ask for")


class _Piece(BaseModel):
    start: float
    end: float
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
        self._url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/audio/transcriptions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
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
        if self._session is not None:
            await self._session.close()

    async def _ask(self, channel: Samples, language: str | None, vocabulary: tuple[str, ...]) -> _Answer:
        form = aiohttp.FormData()
        form.add_field("file", _wav(channel), filename="channel.wav", content_type="audio/wav")
        form.add_field("model", self._model)
        form.add_field("response_format", "verbose_json")
        form.add_field("timestamp_granularities[]", "word")
        form.add_field("timestamp_granularities[]", "segment")
        if language is not None:
            form.add_field("language", language)
        if vocabulary:
            form.add_field("prompt", ", ".join(vocabulary))
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=self._headers)
        try:
            async with self._session.post(self._url, data=form) as response:
                if response.status != 200:
                    detail = (await response.text())[:200]
                    raise TranscriptionError(
                        f"The speech endpoint answered {response.status}: {detail}. Check RINGBACK_SPEECH_URL, its key "
                        "and its model",
                        retryable=response.status in (408, 429) or response.status >= 500,
                    )
                return _Answer.model_validate(await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TranscriptionError(
                f"The speech endpoint cannot be reached ({error!r}). Check RINGBACK_SPEECH_URL", retryable=True
            ) from error
        except (ValidationError, ValueError) as error:
            raise TranscriptionError("The speech endpoint's answer is no transcription in verbose_json") from error


def _words(answer: _Answer, duration: float) -> tuple[Word, ...]:
    """Words with times. Without words, the segments. Without segments, the whole text."""
    if answer.words:
        return tuple(Word(f" {piece.word or ''}", piece.start, piece.end) for piece in answer.words)
    if answer.segments:
        return tuple(Word(f" {piece.text or ''}", piece.start, piece.end) for piece in answer.segments)
    return (Word(answer.text, 0.0, duration),) if answer.text.strip() else ()


def _code(language: Any) -> str | None:
    """OpenAI says "english", other endpoints "en"."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    if language in _LANGUAGE_CODES:
        return str(language)
    return {"english": "en", "hindi": "hi"}.get(str(language).lower())


def _wav(channel: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(channel.astype("<i2").tobytes())
    return file.getvalue()
