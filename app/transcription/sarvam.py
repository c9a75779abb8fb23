"""Recognition by Sarvam, whose models know 22 languages of India, and their mixture with English.

The REST endpoint takes at most 30 s, so each turn of a channel is sent alone. Its times are those of phrases and not of
words. The service's batch API takes whole recordings and is not used: it stores them, and has to be polled.

Written from the published reference of `POST /speech-to-text` (docs.sarvam.ai, 2026-11) and tested against a fake that
follows it. No Sarvam account was tried.
"""

import asyncio
import io
import json
from typing import Any

import aiohttp
from pydantic import AnyHttpUrl, BaseModel, Field, FiniteFloat, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, SpeechRequest, TranscriptionError, Word
from app.transcription.languages import name_of
from app.transcription.pieces import Piece, cut_into_pieces
from app.transcription.speech_http import SpeechService, valid_words, wav_bytes

_LONGEST_SECONDS = 29.0
_TIMEOUT = 120.0
_MOST_KEYTERMS = 50
_LONGEST_KEYTERM = 64

_SAME: tuple[str, ...] = ("as", "bn", "brx", "doi", "en", "gu", "hi", "kn", "kok", "ks", "mai")
_SAME += ("ml", "mni", "mr", "ne", "pa", "sa", "sat", "sd", "ta", "te", "ur")
_CODES = {code: f"{code}-IN" for code in _SAME} | {"or": "od-IN"}
"""The service's language of ours."""
_LANGUAGES = {theirs: ours for ours, theirs in _CODES.items()}


class SarvamOptions(Options):
    """With `RINGBACK_RECOGNIZER=sarvam`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_SARVAM_")

    api_key: SecretStr = Field(description="The API subscription key")
    model: str = Field("saaras:v4", description="The model to ask for. Only `saaras:v4` takes a vocabulary")
    url: AnyHttpUrl = Field(AnyHttpUrl("https://api.sarvam.ai"), description="Base URL")
    requests: int = Field(4, ge=1, description="Requests at once of one worker, for all its recordings")


class _Timestamps(BaseModel):
    words: list[str]
    start_time_seconds: list[FiniteFloat]
    end_time_seconds: list[FiniteFloat]


class _Answer(BaseModel):
    transcript: str
    timestamps: _Timestamps | None = None
    language_code: str | None = None


class SarvamRecognizer:
    """Sends up to `requests` turns at once, of up to `concurrency` recordings."""

    def __init__(
        self, base_url: str, *, api_key: str, model: str = "saaras:v4", requests: int = 4, concurrency: int = 1
    ) -> None:
        self.name = f"sarvam {model}"
        self._model = model
        self._turn = asyncio.Semaphore(concurrency)
        self._requests = asyncio.Semaphore(requests)
        self._service = SpeechService(
            "Sarvam",
            f"{base_url.rstrip('/')}/speech-to-text",
            prefix="RINGBACK_SARVAM_",
            headers={"api-subscription-key": api_key},
            describe=_describe,
            spent=frozenset({"insufficient_quota_error"}),
            timeout=_TIMEOUT,
        )

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Raises `TranscriptionError`. Silence is not sent."""
        async with self._turn:
            return await self._recognize(audio, request)

    async def aclose(self) -> None:
        await self._service.aclose()

    async def _recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        pieces = await asyncio.to_thread(cut_into_pieces, audio.channels, longest_seconds=_LONGEST_SECONDS)
        if not pieces:
            return Recognition(((),) * len(audio.channels), None)
        language = _language(request.languages)
        form = self._form(request)
        # Without a language, the longest piece tells it: detection in each short answer would be often wrong.
        longest = max(pieces, key=lambda piece: piece.last - piece.first)
        answers = {longest: await self._ask(audio, longest, language, form)}
        detected = answers[longest].language_code
        if language == "unknown" and detected in _LANGUAGES:
            language = detected
        others = [piece for piece in pieces if piece != longest]
        try:
            async with asyncio.TaskGroup() as group:
                asked = {piece: group.create_task(self._ask(audio, piece, language, form)) for piece in others}
        except* TranscriptionError as failed:
            raise failed.exceptions[0] from failed  # the others are canceled
        answers |= {piece: task.result() for piece, task in asked.items()}
        channels = tuple(
            tuple(word for piece in pieces if piece.channel == i for word in self._words(answers[piece], piece, audio))
            for i in range(len(audio.channels))
        )
        spoken = next(iter(request.languages), None) or _LANGUAGES.get(detected or "")
        return Recognition(channels, spoken if any(channels) else None)

    def _form(self, request: SpeechRequest) -> dict[str, str]:
        """The fields that all pieces share."""
        form = {"model": self._model, "with_timestamps": "true"}
        if self._model.startswith("saaras"):
            # English words stay in Latin script, and the others in their own.
            form["mode"] = "codemix" if len(request.languages) > 1 else "transcribe"
        terms = [term for term in request.vocabulary if len(term) <= _LONGEST_KEYTERM][:_MOST_KEYTERMS]
        if terms and self._model == "saaras:v4":
            form["keyterms"] = json.dumps(terms, ensure_ascii=False)
        return form

    async def _ask(self, audio: Audio, piece: Piece, language: str, form: dict[str, str]) -> _Answer:
        async with self._requests:
            content = await wav_bytes(audio.channels[piece.channel][piece.first : piece.last])

            def make_body() -> aiohttp.FormData:
                body = aiohttp.FormData({**form, "language_code": language})
                body.add_field("file", io.BytesIO(content), filename="piece.wav", content_type="audio/wav")
                return body

            answer = await self._service.post(make_body)
        try:
            return _Answer.model_validate(answer)
        except ValidationError as error:
            raise self._service.bad_answer() from error

    def _words(self, answer: _Answer, piece: Piece, audio: Audio) -> tuple[Word, ...]:
        offset, until = piece.first / SAMPLE_RATE, min(piece.last / SAMPLE_RATE, audio.duration)
        times = answer.timestamps
        if times is None or not times.words:
            return valid_words([(answer.transcript, 0.0, until - offset)], until, offset=offset)
        if not len(times.words) == len(times.start_time_seconds) == len(times.end_time_seconds):
            raise self._service.bad_answer()
        phrases = zip(times.words, times.start_time_seconds, times.end_time_seconds, strict=True)
        return valid_words(phrases, until, offset=offset)


def _language(languages: tuple[str, ...]) -> str:
    """The service's language of a request. `unknown`: it detects."""
    if not languages:
        return "unknown"
    try:
        return _CODES[languages[0]]
    except KeyError:
        raise TranscriptionError(
            f"Sarvam does not recognize {name_of(languages[0])}: choose another recognizer (RINGBACK_RECOGNIZER)"
        ) from None


def _describe(fault: Any) -> tuple[str, str]:
    return str(fault["error"].get("code") or ""), str(fault["error"]["message"])
