"""Decodes packet by packet. A packet that cannot be read costs only itself."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from app.transcription.decoding.files import FORMATS
from app.transcription.decoding.parts import Part, PartFile, UnreadableAudio, check_shape
from app.transcription.decoding.tracks import GAP_SECONDS, MOST_TRACKS, Track, block_of

if TYPE_CHECKING:
    _Packet = av.Packet[AudioStream]

_MOST_FAILURES = 200
"""After so many demuxer errors without a packet in between, the file ends."""
_LONGEST_GAP_SECONDS = 60
_LONGEST_PAUSE_SECONDS = 1800
"""The longest pause of a format that leaves out silence. A timestamp further ahead is damaged."""
_ERRORS = (FFmpegError, ValueError, OSError, MemoryError, OverflowError, UnicodeError, KeyError)
_COUNTED = ("aac", "ac3", "amr", "amrnb", "amrwb", "eac3", "g722", "g729", "gsm", "loas", "mp3", "mpc")
"""Formats without timestamps. Time is counted in packets, and losses are estimated from bytes."""
_GAPLESS = ("aiff", "au", "caf", "flac", "ogg", "wav", "w64")
"""Formats in which a jump of the timestamps means that something was lost."""
_FRAME_SECONDS = 0.02
"""The assumed length of a packet, if neither it nor an earlier packet says so."""


def decode(data: memoryview, part: Part, tracks: list[Track]) -> float:
    """Append the part's audio streams to the tracks, in order.

    Returns the seconds that the header promises, or 0. Raises `UnreadableAudio` if nothing can be read, or without any
    limit.
    """
    gain = _gain(data, part)
    with _open(data, part) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None][:MOST_TRACKS]
        if not streams:
            raise UnreadableAudio("The recording has no audio in it")
        for stream in streams:
            context = stream.codec_context
            if context.sample_rate:
                check_shape(context.sample_rate, context.channels or 1)
        _Decoding(container, streams, tracks, gain).run()
        return _promised(container, streams[0])


def _open(data: memoryview, part: Part) -> InputContainer:
    try:
        return av.open(
            PartFile(data, part),
            "r",
            format=part.format,
            options=dict(part.options),
            container_options={"format_whitelist": FORMATS},
            metadata_errors="replace",
        )
    except _ERRORS as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableAudio(
            f"The recording cannot be decoded ({why}). Check that the telephony provider's file is whole"
        ) from error


def _gain(data: memoryview, part: Part) -> float:
    """The factor that makes full scale 1. Float samples are read once before, because some recorders write them as
    integers up to 32768."""
    if part.format != "wav":
        return 1.0
    counts = np.zeros(len(_POWERS) + 1, np.int64)
    with _open(data, part) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or stream.codec_context is None or not stream.codec_context.name.startswith("pcm_f"):
            return 1.0
        with suppress(*_ERRORS), np.errstate(all="ignore"):
            for frame in container.decode(stream):
                samples = np.abs(frame.to_ndarray().astype(np.float64, copy=False))
                samples = samples[np.isfinite(samples) & (samples > 1e-6)]
                counts += np.bincount(np.searchsorted(_POWERS, samples.ravel()), minlength=len(counts))
    # Above full scale in more than a few peaks: one sample of a hundred is far more than a clipped file has.
    loud = counts[::-1].cumsum()[::-1] > 0.01 * counts.sum()
    highest = int(np.flatnonzero(loud).max(initial=0))
    if highest < 3:
        return 1.0
    return next((1 / scale for scale in _INTEGERS if scale > _POWERS[highest - 1]), float(0.25 / _POWERS[highest - 1]))


_INTEGERS = (2.0**15, 2.0**23, 2.0**31)
_POWERS = 2.0 ** np.arange(0, 64)


def _promised(container: InputContainer, stream: AudioStream) -> float:
    """Other formats estimate their length from the bit rate, which promises nothing."""
    if container.format.name.partition(",")[0] not in ("mov", "flac", "matroska") or not stream.duration:
        return 0.0
    return float(stream.duration * stream.time_base) if stream.time_base else 0.0


class _Decoding:
    """One pass through a part."""

    def __init__(self, container: InputContainer, streams: list[AudioStream], tracks: list[Track], gain: float) -> None:
        self._container = container
        self._streams = streams
        self._gain = gain
        while len(tracks) < len(streams):
            tracks.append(Track())
        self._tracks = {stream.index: track for stream, track in zip(streams, tracks, strict=False)}
        self._base = max((track.seconds for track in tracks), default=0.0)
        self._origin = (container.start_time or 0) / av.time_base
        self._usual = {stream.index: 0.0 for stream in streams}
        self._before = {index: track.decoded for index, track in self._tracks.items()}
        self._bytes = {stream.index: 0 for stream in streams}
        self._end = 0
        self._skipped = 0
        """Bytes between packets since the last frame: headers, or what the demuxer could not read."""
        self._format = container.format.name.partition(",")[0]

    def run(self) -> None:
        for track in self._tracks.values():  # a stream that ended early in the previous part
            if self._base > track.seconds:
                track.skip(self._base - track.seconds)
        for packet in self._packets():
            self._decode(packet)
        for stream in self._streams:
            try:
                for frame in stream.codec_context.decode(None):
                    self._write(stream, frame)
            except _ERRORS:
                pass  # the decoder is empty
            self._tracks[stream.index].finish()

    def _packets(self) -> Iterator["_Packet"]:
        failures = 0
        while failures < _MOST_FAILURES:
            try:
                for packet in self._container.demux(self._streams):
                    if packet.size:
                        failures = 0
                        yield cast("_Packet", packet)
                return
            except av.error.EOFError:
                return
            except _ERRORS:
                failures += 1

    def _decode(self, packet: "_Packet") -> None:
        stream = packet.stream
        track = self._tracks[stream.index]
        if packet.pos is not None and packet.pos >= 0:
            self._skipped += max(0, packet.pos - (self._end or packet.pos))
            self._end = packet.pos + packet.size
        try:
            frames = packet.decode()
            for frame in frames:
                if frame.is_corrupt:
                    raise ValueError("corrupt")
                self._write(stream, frame)
        except UnreadableAudio:
            raise
        except _ERRORS:
            lost = self._length(packet)
            track.lost += lost
            if self._format in _COUNTED or packet.pts is None:
                track.skip(lost)
        else:
            self._bytes[stream.index] += packet.size

    def _length(self, packet: "_Packet") -> float:
        """The length of a packet that could not be decoded, in seconds."""
        index, time_base = packet.stream.index, packet.time_base
        own = float(packet.duration * time_base) if packet.duration and time_base else 0.0
        seconds = own if 0 < own < 10 else self._usual[index] or _FRAME_SECONDS
        decoded = self._tracks[index].decoded - self._before[index]
        if self._format in _COUNTED and self._bytes[index] and decoded > 1:
            return min(max(seconds, packet.size * decoded / self._bytes[index]), 10.0)
        return seconds

    def _skipped_for(self, index: int) -> float:
        """How many seconds of audio the skipped bytes may have been."""
        decoded = self._tracks[index].decoded - self._before[index]
        return self._skipped * decoded / self._bytes[index] if self._bytes[index] else 0.0

    def _write(self, stream: AudioStream, frame: av.AudioFrame) -> None:
        track = self._tracks[stream.index]
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        try:
            check_shape(rate, channels)
        except UnreadableAudio as error:
            if track.decoded:  # a damaged frame among good ones
                raise ValueError(str(error)) from error
            raise
        self._usual[stream.index] = frame.samples / rate
        at = None
        skipped = self._skipped_for(stream.index)
        if self._format in _COUNTED:
            if self._usual[stream.index] / 2 < skipped < 10:
                track.lost += skipped
                track.skip(skipped)
        elif frame.pts is not None and frame.time_base:
            at = self._base + float(frame.pts * frame.time_base) - self._origin
            gap = at - track.seconds
            gapless = self._format in _GAPLESS
            if gap > (_LONGEST_GAP_SECONDS if gapless else _LONGEST_PAUSE_SECONDS):
                at = None
            elif gap > GAP_SECONDS and (gapless or skipped > gap / 2) and track.decoded:
                track.lost += gap
        self._skipped = 0
        block, broken = block_of(frame, self._gain)
        track.lost += broken / rate
        track.write(block, rate, at)
