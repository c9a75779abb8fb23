"""From recording to transcript: decode, recognize each channel, merge into turns, make the digest."""

from dataclasses import replace
from pathlib import Path

from app.transcription.audio import load
from app.transcription.base import Recognizer, SpeechRequest, Summarizer, Transcription, TranscriptionError
from app.transcription.languages import languages_of
from app.transcription.outcome_set import DEFAULT, OutcomeSet
from app.transcription.summary import silent
from app.transcription.turns import make_turns

SILENCE_DB = -55.0
"""A recording whose loudest 10 ms are below this holds no sound, only noise of the line."""


async def transcribe(
    path: Path,
    *,
    recognizer: Recognizer,
    summarizer: Summarizer,
    language: str | None,
    vocabulary: tuple[str, ...] = (),
    wanted: OutcomeSet = DEFAULT,
    content_type: str = "",
    name: str = "",
    agent_channel: int = 1,
) -> Transcription:
    """Transcribe the recording at `path`.

    `language`: what the client says is spoken, or None. `vocabulary`: names and terms to expect. `wanted`: the outcomes
    and fields to find. `content_type` and `name`: what the recording's sender called it, for files without a header.
    `agent_channel`: 1 or 2.

    Raises `TranscriptionError`, whose notes say what was found out about the recording.
    """
    audio = await load(path, content_type, name, agent_channel=agent_channel)
    if audio.level < SILENCE_DB:
        return Transcription((), silent(audio.duration), None, audio.duration, audio.notes)
    try:
        recognition = await recognizer.recognize(audio, SpeechRequest(languages_of(language), vocabulary))
    except TranscriptionError as error:
        error.notes = audio.notes
        raise
    turns = tuple(replace(turn, content=_text(turn.content)) for turn in make_turns(recognition, audio.roles))
    digest = await summarizer.digest(turns, language=recognition.language, duration=audio.duration, wanted=wanted)
    summary = f"{recognition.warning} {digest.summary}" if recognition.warning else digest.summary
    fields = digest.fields and {name: value and _text(value) for name, value in digest.fields.items()}
    digest = replace(digest, summary=_text(summary), outcome=_text(digest.outcome), fields=fields)
    language = recognition.language and _text(recognition.language)
    return Transcription(turns, digest, language, audio.duration, audio.notes + recognition.notes)


def _text(said: str) -> str:
    """An engine's text without characters that are no text, or that no database stores."""
    return said.encode("utf-8", "replace").decode().replace("\0", "")
