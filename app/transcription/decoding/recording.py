"""From a file to the voices to transcribe."""

import mmap
from pathlib import Path

from app.transcription.channels import Choice, choose
from app.transcription.decoding import ffmpeg, files
from app.transcription.decoding.parts import Part, TooLong, UnreadableAudio
from app.transcription.decoding.tracks import Stored, Track

_STRAY = 0.02
"""If only this share of a track has another number of channels, that is a damaged header and not a part of the call."""
_WORTH_A_NOTE_SECONDS = 0.5


def read(path: Path, content_type: str, name: str, *, agent_channel: int = 1) -> Choice:
    """Read everything that can be read. `content_type` and `name` are as the sender gave them, or empty.
    `agent_channel`: the channel of the agent, 1 or 2.

    Raises `UnreadableAudio`.
    """
    with path.open("rb") as file:
        empty = not path.stat().st_size
        data = memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parts, notes = files.parts_of(data, content_type, name)
    tracks: list[Track] = []
    try:
        notes += _decode(data, parts, tracks)
        held = [banks for track in tracks if (banks := _banks(track))]
    finally:
        for track in tracks:
            track.close()
    if not held:
        raise UnreadableAudio(
            f"The recording has no audio in it: {len(data)} bytes, and no samples. Check that the telephony provider's "
            "file is whole"
        )
    choice = choose(held, agent_channel)
    return Choice(choice.voices, (*notes, *choice.notes))


def _decode(data: memoryview, parts: list[Part], tracks: list[Track]) -> list[str]:
    """Fill the tracks. Returns notes for the call's history."""
    promised, failures = 0.0, []
    for part in parts:
        try:
            promised += ffmpeg.decode(data, part, tracks)
        except TooLong:
            raise
        except UnreadableAudio as error:
            failures.append(error)
    if failures and not any(track.decoded for track in tracks):
        raise failures[0]
    notes = _losses(tracks, promised)
    if failures:
        notes.append(f"{len(failures)} of the {len(parts)} files that the recording consists of could not be read")
    return notes


def _banks(track: Track) -> list[Stored]:
    """What the track holds, the longest first, without strays."""
    banks = sorted((bank for bank in track.banks.values() if bank.written), key=lambda bank: -bank.written)
    return [bank.samples() for bank in banks if bank.written > _STRAY * banks[0].written]


def _losses(tracks: list[Track], promised: float) -> list[str]:
    lost = max((track.lost for track in tracks), default=0.0)
    read = max((track.seconds for track in tracks), default=0.0)
    notes = []
    if lost:
        notes.append(
            f"{lost:.1f} s of the recording could not be read" if lost >= 0.05 else "A moment could not be read"
        )
    missing = promised - read
    if missing >= _WORTH_A_NOTE_SECONDS:
        notes.append(f"The recording's header promises {promised:.1f} s; {read:.1f} s could be read")
    return notes
