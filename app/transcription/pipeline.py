"""A recording becomes a transcript: decode, recognize each side, merge into turns, digest."""

import asyncio
from pathlib import Path

from app.transcription.audio import load
from app.transcription.base import Recognizer, Summarizer, Transcription
from app.transcription.turns import make_turns


async def transcribe(
    path: Path, *, recognizer: Recognizer, summarizer: Summarizer, language: str | None
) -> Transcription:
    """All that is made of the recording at `path`. `language` as in `Recognizer.recognize`.

    Raises `TranscriptionError`.
    """
    audio = await asyncio.to_thread(load, path)
    recognition = await recognizer.recognize(audio, language)
    turns = make_turns(recognition)
    digest = await summarizer.digest(turns, language=recognition.language, duration=audio.duration)
    return Transcription(turns, digest, recognition.language, audio.duration)
