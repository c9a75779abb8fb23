"""Follows one call: prints each event as it is written, then the transcript."""

import asyncio
from datetime import datetime

from rich.console import Console
from rich.text import Text

from app import history
from app.db import Database
from app.models import CallEventRow, TranscriptRow, TranscriptStatus

_LOOK_SECONDS = 0.2
_GOOD = {"completed", "ready", "delivered"}
_BAD = {"failed", "timed_out", "busy", "no_answer", "canceled"}


def coloured(status: str, width: int = 0) -> Text:
    """A status in the colour of its kind, padded to `width` characters."""
    return Text(f"{status:<{width}}", "green" if status in _GOOD else "red" if status in _BAD else "cyan")


async def follow(db: Database, call_id: str, console: Console) -> bool:
    """Print the call's events until its transcript is ready or has failed. Returns whether it is ready."""
    console.print(f"{call_id}", markup=False)
    last, start = 0, None
    with console.status("waiting for a worker …") as status:
        while True:
            async with db.transaction() as session:
                # In this order, so that the event that ends a transcript is not missed.
                transcript = await history.get_transcript(session, call_id)
                news = await history.list_events(session, call_id, last)
            for event in news:
                start = start or event.happened_at
                last = event.id
                console.print(_line(event, start))
                status.update(f"{event.status.replace('_', ' ')} …")
            if transcript.status == TranscriptStatus.PROCESSING:
                status.update("recognizing what was said …")
            if transcript.status not in (TranscriptStatus.PENDING, TranscriptStatus.PROCESSING):
                break
            await asyncio.sleep(_LOOK_SECONDS)
    print_transcript(transcript, console)
    return transcript.status == TranscriptStatus.READY


def print_transcript(transcript: TranscriptRow, console: Console) -> None:
    """Print the transcript, or why there is none."""
    console.print(Text("Transcript: ") + coloured(transcript.status))
    for turn in transcript.history or ():
        console.print(f"  {turn['start']:6.1f} s  {turn['role']:<9} {turn['content']}", markup=False, soft_wrap=True)
    if transcript.summary:
        console.print(f"Summary: {transcript.summary}", markup=False, soft_wrap=True)
        console.print(f"Outcome: {_outcome(transcript)}", markup=False)
    for name, value in (transcript.fields or {}).items():
        console.print(f"{name}: {'not said' if value is None else value}", markup=False, soft_wrap=True)
    if transcript.failure:
        console.print(f"Reason: {transcript.failure}", markup=False, soft_wrap=True)


def _outcome(transcript: TranscriptRow) -> str:
    """The outcome, its detail, and how sure it is."""
    detail = f" ({transcript.detail})" if transcript.detail and transcript.detail != transcript.outcome else ""
    sure = "" if transcript.certainty is None else f", certainty {transcript.certainty:.2f}"
    return f"{transcript.outcome}{detail}{sure}"


def _line(event: CallEventRow, start: datetime) -> Text:
    about = " ".join(part for part in (event.leg, event.detail or event.key.replace(":", " ")) if part)
    shown = about.replace("agent agent", "agent").replace("customer customer", "customer")
    after = (event.happened_at - start).total_seconds()
    return Text(f"  {after:6.2f} s  ") + coloured(event.status, 12) + Text(f" {shown}")
