"""WAV as recorders really write it: with sizes of 0, too large or too small, several files in one, odd `fmt ` chunks.

Only the `fmt ` chunk and the position of the samples are used. FFmpeg gets a new header.
"""

import re
import struct

from app.transcription.decoding.parts import Part, UnreadableAudio, check_length, check_shape

_RIFF = re.compile(rb"(?:RIFF|RF64|BW64)....WAVE", re.DOTALL)
_NEXT_FILE = re.compile(rb"(?:RIFF|RF64|BW64)....WAVE(?:fmt |JUNK|bext|ds64|fact|LIST)", re.DOTALL)
_CHUNK_ID = re.compile(rb"[A-Za-z][A-Za-z0-9_ ]{3}")
_MOST_PARTS = 1000

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_OPEN_ENDED = (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Sizes that a recorder writes before it knows the size. They remain if it dies."""


def find(data: bytes, until: int) -> int | None:
    """Where a WAV file begins in these bytes."""
    match = _RIFF.search(data[:until])
    return None if match is None else match.start()


def parts_of(data: memoryview, start: int) -> tuple[list[Part], list[str]]:
    """Every WAV file from `start` on, and notes. Raises `UnreadableAudio`."""
    parts: list[Part] = []
    notes: list[str] = []
    at: int | None = start
    while at is not None and len(parts) < _MOST_PARTS:
        following = _NEXT_FILE.search(data, at + 12)
        until = len(data) if following is None else following.start()
        part, note = _part(data, at, until)
        if part is not None:
            parts.append(part)
        if note:
            notes.append(note)
        at = None if following is None else until
    if len(parts) > 1:
        rest = "all were read" if at is None else "what follows them was not read"
        notes.append(f"The recording is {len(parts)} WAV files one after the other; {rest}")
    return parts, notes


def _part(data: memoryview, start: int, until: int) -> tuple[Part | None, str | None]:
    fmt: bytes | None = None
    body: tuple[int, int] | None = None
    size_64: int | None = None
    at = start + 12
    while at + 8 <= until:
        kind, size = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        inside = at + 8
        if kind == b"fmt ":
            fmt = bytes(data[inside : min(inside + max(size, 16), until)])
            if size < 16:  # another chunk begins in what is too short for one
                size = 16
        elif kind == b"ds64" and inside + 16 <= until:
            size_64 = struct.unpack_from("<Q", data, inside + 8)[0]
        elif kind == b"data":
            if body is None:
                body = (inside, size_64 if size == 0xFFFFFFFF and size_64 is not None else size)
            if fmt is not None:
                break
            size = body[1]
        elif not _CHUNK_ID.fullmatch(kind):
            break
        at = inside + size + size % 2
    if body is None:
        return None, None
    if fmt is None or len(fmt) < 16:
        raise UnreadableAudio("The recording's header does not say how its samples are written. Check the recorder")
    begin, promised = body
    end, lied = _real_end(data, begin, promised, until)
    header, block, rate = _header(fmt, end - begin)
    check_length((end - begin) / rate)
    if end - begin < block:
        return None, None
    note = None
    if promised > end - begin and promised not in _OPEN_ENDED:
        note = (
            f"The recording's header promises {promised / rate:.1f} s; the file ends after {(end - begin) / rate:.1f} s"
        )
    elif lied:
        note = "The recording's header is wrong about its length; the file was read to its real end"
    return Part(begin, end, header, "wav"), note


def _real_end(data: memoryview, begin: int, promised: int, until: int) -> tuple[int, bool]:
    """The end of the samples, and whether the header says something else."""
    if begin + promised > until:
        return until, True
    for end in (begin + promised, begin + promised + promised % 2):
        if end + 4 >= until:  # padding, at most
            return (begin + promised, False) if end == until or promised else (until, True)
        if end + 8 <= until and _CHUNK_ID.fullmatch(data[end : end + 4]):
            size = struct.unpack_from("<I", data, end + 4)[0]
            if end + 8 + size <= until:
                return begin + promised, False
    return until, True


def _header(fmt: bytes, size: int) -> tuple[bytes, int, float]:
    """A header for this many bytes of samples, with the bytes of a block and of a second. Raises `UnreadableAudio`."""
    tag, channels, rate, per_second, block, bits = struct.unpack_from("<HHIIHH", fmt)
    rest = fmt[16:]
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        # The mask of loudspeakers is left out, because a mask that names too few would cost a channel.
        tag, rest = struct.unpack_from("<H", fmt, 24)[0], b""
    check_shape(rate, channels)
    if tag in (_PCM, _FLOAT, _ALAW, _MULAW):
        whole = bits + -bits % 8
        stored = block * 8 // channels
        width = stored if stored % 8 == 0 and whole <= stored <= 64 else whole
        if tag in (_ALAW, _MULAW):
            width = 8
        if width not in ((32, 64) if tag == _FLOAT else (8, 16, 24, 32, 64)):
            raise UnreadableAudio(
                f"The recording claims samples of {bits} bits, which nothing reads. Check the recorder"
            )
        block = channels * width // 8
        per_second = rate * block
        fmt = struct.pack("<HHIIHH", tag, channels, rate, per_second, block, width)
    else:
        block = max(block, 1)
        # The slowest codec that is still speech has about 600 bytes per second.
        per_second = per_second if per_second >= 300 else rate * channels // 8
        fmt = struct.pack("<HHIIHH", tag, channels, rate, per_second, block, bits) + rest
    chunk = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk) + size) + b"WAVE" + chunk, block, float(per_second)
