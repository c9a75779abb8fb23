"""A recording becomes a transcript: decode, recognize each side, merge into turns, digest."""

import asyncio
from dataclasses import replace
from pathlib import Path

from app.transcription.audio import load
from app.transcription.base import Digest, Recognizer, Summarizer, Transcription
from app.transcription.turns import make_turns


async def transcribe(
    path: Path, *, recognizer: Recognizer, summarizer: Summarizer, language: str | None
) -> Transcription:
    """All that is made of the recording at `path`. `language`: what a client said is spoken, or None.

    Raises `TranscriptionError`.
    """
    audio = await asyncio.to_thread(load, path)
    recognition = await recognizer.recognize(audio, language and language_code(language))
    turns = tuple(replace(turn, content=_text(turn.content)) for turn in make_turns(recognition))
    digest = await summarizer.digest(turns, language=recognition.language, duration=audio.duration)
    digest = Digest(_text(digest.summary), _text(digest.outcome))
    language = recognition.language and _text(recognition.language)
    return Transcription(turns, digest, language, audio.duration)


def language_code(asked: str) -> str:
    """ISO 639-1, which is what engines know: `hi` for `hi`, `hi-IN` and `HI_in`, and for `hi-en`, Hindi-English."""
    return asked.casefold().replace("_", "-").partition("-")[0]


def _text(said: str) -> str:
    """Whatever an engine answers: without what is no text, and no database keeps."""
    return said.encode("utf-8", "replace").decode().replace("\0", "")
