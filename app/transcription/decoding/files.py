"""The format of a file: from its bytes, or where they do not say it, from the type and name that its sender gave it."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from app.transcription.decoding import wav
from app.transcription.decoding.parts import Part, UnreadableAudio

FORMATS = (
    "aac,ac3,adts,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,g722,g726,g726le,g729,gsm,ilbc,ircam,"
    "loas,matroska,mov,mp3,mpeg,mpegts,mpc,mulaw,alaw,nistsphere,ogg,s16be,s16le,sox,tta,voc,w64,wav,wv"
)
"""The formats that FFmpeg may detect. Playlists are not among them, because they would open other files and
addresses."""

_RAW_TYPES = {
    "audio/basic": "mulaw",
    "audio/pcmu": "mulaw",
    "audio/x-mulaw": "mulaw",
    "audio/mulaw": "mulaw",
    "audio/x-ulaw": "mulaw",
    "audio/ulaw": "mulaw",
    "audio/pcma": "alaw",
    "audio/x-alaw": "alaw",
    "audio/alaw": "alaw",
    "audio/gsm": "gsm",
    "audio/x-gsm": "gsm",
    "audio/l16": "s16be",
    "audio/x-sln": "s16le",
    "audio/g722": "g722",
}
_RAW_ENDINGS = {
    ".ul": "mulaw",
    ".ulaw": "mulaw",
    ".mulaw": "mulaw",
    ".pcmu": "mulaw",
    ".mu": "mulaw",
    ".al": "alaw",
    ".alaw": "alaw",
    ".pcma": "alaw",
    ".gsm": "gsm",
    ".sln": "s16le",
    ".slin": "s16le",
    ".sln8": "s16le",
    ".sln16": "s16le",
    ".raw": "s16le",
    ".g722": "g722",
}
_RATES = {".sln16": "16000"}

_MAGIC = re.compile(
    rb"OggS|fLaC|ID3|\.snd|FORM....AIF|caff|#!AMR|wvpk|MAC |TTA1|NIST_1A|Creative Voice|\x30\x26\xb2\x75|"
    rb"\x1a\x45\xdf\xa3|FLV\x01|.SoX|RIFX|riff\x2e\x91|....(?:ftyp|moov|mdat|free|wide|skip)",
    re.DOTALL,
)
_PAGE = re.compile(rb"<!doctype|<html|<head|<body|<script|<\?php", re.IGNORECASE)
_BEGINS = re.compile(
    rb"fLaC\0\0\0\x22|OggS\0\x02|ID3[\x02-\x04]\0|#!AMR(?:-WB)?\n|\x1a\x45\xdf\xa3|\.snd\0\0\0|FORM....AIF", re.DOTALL
)
_SEARCHED = 64 * 1024
_MOST_JUNK = 4096
"""How far into the data a file may begin, after headers of a response or other foreign bytes."""
_MOST_PARTS = 1000


def parts_of(data: memoryview, content_type: str, name: str) -> tuple[list[Part], list[str]]:
    """How to read the file, and notes for the call's history. Raises `UnreadableAudio`."""
    if not len(data):
        raise UnreadableAudio(
            "The recording is empty (0 bytes). The telephony system stored a file without audio: check its recorder"
        )
    head = bytes(data[:_SEARCHED])
    refuse_text(head)
    magic = _MAGIC.match(head)
    start = _wav_start(head, magic)
    if start is not None:
        return wav.parts_of(data, start)
    if magic is None and (raw := _raw(len(data), content_type, name)) is not None:
        return [raw], []
    if magic is None and _is_gsm(head):
        return [Part(0, len(data), format="gsm", options={"sample_rate": "8000"})], []
    junk = None if magic else _BEGINS.search(head[:_MOST_JUNK])
    starts = [junk.start() if junk else 0]
    for begins, next_starts in _JOINED:
        if head.startswith(begins, starts[0]) or (begins == b"ftyp" and head[4:8] == begins):
            starts += [start for start in next_starts(data) if start > starts[0]]
    starts = starts[:_MOST_PARTS]
    ends = [*starts[1:], len(data)]
    notes = [f"The recording is {len(starts)} files one after the other; all were read"] if len(starts) > 1 else []
    return [Part(start, end) for start, end in zip(starts, ends, strict=True)], notes


def refuse_text(head: bytes) -> None:
    """Raises `UnreadableAudio` for a web page or another text. `head` is the beginning of the file."""
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text.startswith((b"\xff\xfe<", b"\xfe\xff\x00<")):
        text = text[2:].replace(b"\0", b"")
    text = text.lstrip()
    if text.startswith(b"<") and _PAGE.search(text[:4096]):
        raise UnreadableAudio(
            "The recording's link led to a web page, not to audio. A link that asks for a login, or that has expired, "
            "does so: check the link that the telephony system reports"
        )
    start = text[:512]
    if start.startswith((b"RIFF", b"OggS", b"fLaC", b"ID3", b"#!AMR")):  # cut off after a few bytes
        return
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in start)
    if start and printable == len(start) and _is_utf8(start):
        kind = "an XML document" if start.startswith(b"<") else "a JSON document" if start[:1] in b"{[" else "text"
        raise UnreadableAudio(
            f"The recording's link led to {kind}, not to audio. Check the link that the telephony system reports",
            note=f"The recording's link led to {kind}. It begins: “{_quoted(start)}”",
        )


def _wav_start(head: bytes, magic: re.Match[bytes] | None) -> int | None:
    """Where a WAV file begins: at once, after a few foreign bytes, or after a tag as in MP3 files."""
    if magic is None:
        return wav.find(head, _MOST_JUNK)
    if magic[0] != b"ID3" or len(head) < 10:
        return None
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    start = wav.find(head, 10 + size + 12)
    return start if start == 10 + size else None


def _is_utf8(text: bytes) -> bool:
    try:
        text[: len(text) - 3 if len(text) > 3 else None].decode()
    except UnicodeDecodeError as error:
        return error.start >= len(text) - 6  # cut in the middle of a character
    return True


def _quoted(text: bytes) -> str:
    return " ".join(text[:80].decode("utf-8", "ignore").split())


def _raw(size: int, content_type: str, name: str) -> Part | None:
    """A file without any header, which only its type or name explains."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    ending = PurePosixPath(name).suffix.lower()
    raw = _RAW_TYPES.get(kind) or _RAW_ENDINGS.get(ending)
    if raw is None:
        return None
    rate = given.get("rate", "")
    rate = rate if rate.isdigit() else _RATES.get(ending, "8000")
    if raw == "g722":
        return Part(0, size, format=raw)
    if raw == "gsm":
        return Part(0, size, format=raw, options={"sample_rate": rate})
    channels = given.get("channels", "")
    layout = f"{channels} channels" if channels.isdigit() and channels != "1" else "mono"
    return Part(0, size, format=raw, options={"sample_rate": rate, "ch_layout": layout})


def _is_gsm(head: bytes) -> bool:
    """Whether it is GSM 06.10. It has no header, but each frame of 33 bytes begins with the bits 1101."""
    starts = head[::33]
    return len(starts) >= 10 and all(byte >> 4 == 0xD for byte in starts)


def _found(pattern: bytes) -> Callable[[memoryview], list[int]]:
    """Finds where else the pattern is in the file."""
    compiled = re.compile(pattern, re.DOTALL)
    return lambda data: [match.start() for match in compiled.finditer(data, 1)]


def _chains(data: memoryview) -> list[int]:
    """Ogg: the first page of a stream after pages of another begins a new chain."""
    starts, before = [], True
    for match in re.finditer(rb"OggS\0[\0-\x07]", data):
        first = bool(data[match.start() + 5] & 2)
        if first and not before:
            starts.append(match.start())
        before = first
    return starts


def _second_films(data: memoryview) -> list[int]:
    """MP4: a second `ftyp` among the top boxes. Raises `UnreadableAudio` for a file without its index."""
    starts: list[int] = []
    at, has_index = 0, False
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        has_index = has_index or kind in (b"moov", b"moof")
        if at and kind == b"ftyp":
            starts.append(at)
        if size == 1 and at + 16 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            break
        at += size
    if not has_index:
        raise UnreadableAudio(
            "The recording was cut off: the index that this format has at its end is missing, and without it nothing "
            "can be read. Check that the telephony provider's file is whole"
        )
    return starts


_JOINED: tuple[tuple[bytes, Callable[[memoryview], list[int]]], ...] = (
    (b"OggS", _chains),
    (b"ftyp", _second_films),
    (b"ID3", _found(rb"ID3[\x02-\x04]\0[\0\x10\x20\x40\x80][\0-\x7f]{4}")),
    (b"fLaC", _found(rb"fLaC[\0\x80]\0\0\x22")),
    (b"#!AMR", _found(rb"#!AMR(?:-WB)?\n")),
    (b"\x1a\x45\xdf\xa3", _found(rb"\x1a\x45\xdf\xa3.{0,48}(?:matroska|webm)")),
    (b".snd", _found(rb"\.snd\0\0..")),
)
"""How a file begins, and how to find further files of its kind in it, as `cat` joins them."""
