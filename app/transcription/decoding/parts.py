"""A file as a list of parts. One demuxer reads each part from start to end."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_SECONDS = 6 * 3600
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
MOST_CHANNELS = 8


class UnreadableAudio(Exception):
    """The file has no audio that can be read. The text tells a person why, and what to do."""

    def __init__(self, reason: str, *, note: str | None = None) -> None:
        """`note` is only for the call's history. Clients must not read what another server answered."""
        super().__init__(reason)
        self.note = note


class TooLong(UnreadableAudio):
    """There is more audio than is read."""


class NoRoom(Exception):
    """There is no room for the decoded audio. The file may be fine, and there may be room later."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end` of the file, read as if `header` were before them."""

    start: int
    end: int
    header: bytes = b""
    format: str | None = None
    """FFmpeg's name of the format. None: FFmpeg detects it."""
    options: Mapping[str, str] = field(default_factory=dict)


class PartFile(io.RawIOBase):
    """A part as a seekable file. Only what is read is copied."""

    def __init__(self, data: memoryview, part: Part) -> None:
        self._header = part.header
        self._body = data[part.start : part.end]
        self._size = len(part.header) + len(self._body)
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        header = len(self._header)
        read = self._header[self._at : end] + bytes(self._body[max(0, self._at - header) : max(0, end - header)])
        self._at = max(self._at, end)
        return read

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def check_shape(rate: int, channels: int) -> None:
    """Raises `UnreadableAudio` for a rate or a number of channels that no recorder of telephone calls writes.

    Such a header would make the samples a thousand times larger than the file.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UnreadableAudio(
            f"The recording claims a sample rate of {rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz can be read. Check "
            "what the recorder writes into the file's header"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise UnreadableAudio(
            f"The recording claims {channels} channels; 1 to {MOST_CHANNELS} can be read. Check what the recorder "
            "writes into the file's header"
        )


def check_length(seconds: float) -> None:
    """Raises `TooLong` for more than `LONGEST_SECONDS`."""
    if seconds > LONGEST_SECONDS:
        raise TooLong(f"The recording is longer than {LONGEST_SECONDS // 3600} hours, which is the most that is read")
