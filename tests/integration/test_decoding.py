"""What is read from files as recorders really write them. No recognition."""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

from app.telephony.simulator import CONVERSATIONS
from app.transcription.base import SAMPLE_RATE
from app.transcription.channels import Choice
from app.transcription.decoding import parts
from app.transcription.decoding.parts import UnreadableAudio
from app.transcription.decoding.recording import read

Sides = npt.NDArray[np.float64]
RATE = 8000
SIDES, _ = soundfile.read(CONVERSATIONS / "callback.wav")
SECONDS = len(SIDES) / RATE
FORMATS = {
    "wav": ("pcm_s16le", "wav"),
    "mp3": ("libmp3lame", "mp3"),
    "ogg": ("libvorbis", "ogg"),
    "opus": ("libopus", "ogg"),
    "flac": ("flac", "flac"),
    "m4a": ("aac", "mp4"),
    "aac": ("aac", "adts"),
    "webm": ("libopus", "webm"),
    "mka": ("libopus", "matroska"),
    "ima": ("adpcm_ima_wav", "wav"),
    "alaw": ("pcm_alaw", "wav"),
    "au": ("pcm_s16be", "au"),
}


def encode(path: Path, *tracks: Sides, form: str, rate: int = RATE) -> Path:
    """A file with these tracks (samples x channels)."""
    if form == "ogg":
        soundfile.write(path, tracks[0], rate, format="OGG")
        return path
    codec, container = FORMATS[form]
    with av.open(str(path), "w", format=container) as output:
        made = []
        for track in tracks:
            wanted = 48000 if codec == "libopus" else rate
            stream = output.add_stream(codec, rate=wanted, layout="mono" if track.shape[1] == 1 else "stereo")
            assert isinstance(stream, AudioStream)
            stream.bit_rate = 32000 * track.shape[1]
            made.append(stream)
        for stream, track in zip(made, tracks, strict=True):
            layout = stream.layout.name
            resampler = av.AudioResampler(stream.format.name, layout, stream.rate, frame_size=stream.frame_size or 1024)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(track.T, np.float32), "fltp", layout)
            frame.sample_rate = rate
            for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
                output.mux(stream.encode(resampled))
            output.mux(stream.encode(None))
    return path


def wav(
    samples: Sides = SIDES,
    *,
    tag: int = 1,
    rate: int = RATE,
    bits: int = 16,
    channels: int = 2,
    size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """`size` is what the header says about the samples, if it is wrong. `extra` follows the samples."""
    body = samples.astype("<f4").tobytes() if tag == 3 else (samples * 32767).astype("<i2").tobytes()
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block % 2**16, bits)
    said = len(body) if size is None else size
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", said) + body + extra
    return b"RIFF" + struct.pack("<I", min(said + 36, 2**32 - 1)) + chunks


def of(path: Path, data: bytes, content_type: str = "", name: str = "") -> Choice:
    path.write_bytes(data)
    return read(path, content_type, name)


def samples_of(choice: Choice) -> Sides:
    return np.concatenate(list(choice.blocks())) / 32768


def likeness(choice: Choice, sides: Sides = SIDES, rate: int = RATE) -> list[float]:
    """How much each channel resembles what it should be, by its loudness over time. 1 is the same.

    A codec's delay does not count, nor the click of a damaged frame.
    """
    found = []
    for got, wanted in zip(samples_of(choice).T, sides.T, strict=True):
        aim = loudness(wanted, rate)
        tries = [loudness(got[late * SAMPLE_RATE // 50 :], SAMPLE_RATE).clip(0, aim.max()) for late in range(8)]
        sizes = [min(len(aim), len(tried)) for tried in tries]
        found.append(
            max(float(np.corrcoef(tried[:size], aim[:size])[0, 1]) for tried, size in zip(tries, sizes, strict=True))
        )
    return found


def loudness(channel: Sides, rate: int) -> Sides:
    """The loudness of every 50 ms."""
    step = rate // 20
    means: Sides = np.abs(channel[: len(channel) // step * step]).reshape(-1, step).mean(axis=1)
    return means


@pytest.mark.parametrize("form", FORMATS)
def test_formats(tmp_path: Path, form: str) -> None:
    choice = read(encode(tmp_path / "a", SIDES, form=form), "", "")
    assert choice.roles == ("agent", "customer")
    assert choice.length / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.3)
    assert min(likeness(choice)) > 0.9
    assert not choice.notes


def companded(samples: Sides, codec: str) -> bytes:
    encoder = cast(AudioCodecContext, av.CodecContext.create(codec, "w"))
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
    frame.sample_rate = RATE
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


MONO = SIDES.mean(axis=1)
RAW: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "mu-law by type": (lambda: companded(MONO, "pcm_mulaw"), "audio/basic", "x"),
    "mu-law by name": (lambda: companded(MONO, "pcm_mulaw"), "application/octet-stream", "x.ulaw"),
    "A-law by type": (lambda: companded(MONO, "pcm_alaw"), "audio/pcma;rate=8000", "x"),
    "A-law by name": (lambda: companded(MONO, "pcm_alaw"), "", "x.alaw"),
    "Asterisk's sln": (lambda: (MONO * 32767).astype("<i2").tobytes(), "audio/x-sln", "x.sln"),
    "linear, as on the wire": (lambda: (MONO * 32767).astype(">i2").tobytes(), "audio/l16;rate=8000", "x"),
}


@pytest.mark.parametrize("what", RAW)
def test_files_without_a_header(tmp_path: Path, what: str) -> None:
    make, content_type, name = RAW[what]
    choice = of(tmp_path / "a", make(), content_type, name)
    assert choice.roles == ("unknown",)
    assert likeness(choice, MONO[:, None])[0] > 0.99
    assert choice.length / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.01)


def test_linear_stereo_without_a_header(tmp_path: Path) -> None:
    data = (SIDES * 32767).astype(">i2").tobytes()
    assert min(likeness(of(tmp_path / "a", data, "audio/l16;rate=8000;channels=2"))) > 0.99


@pytest.mark.parametrize("said", ["audio/gsm", ""])
def test_gsm(tmp_path: Path, said: str) -> None:
    """Frames of silence, as every line has them, also without a type or name that says what they are."""
    frame = (
        bytes.fromhex("d820a2e1") + bytes.fromhex("5000490024492449245000492492492450004924924924500049249249") + b"\0"
    )
    assert len(frame) == 34
    choice = of(tmp_path / "a", frame[:33] * 100, said)
    assert choice.length / SAMPLE_RATE == pytest.approx(2, abs=0.05)


LIES = {
    "0": wav(size=0),
    "the largest there is": wav(size=0xFFFFFFFF),
    "twice the truth": wav(size=8 * len(SIDES)),
    "less than the truth": wav(size=8000),
    "after junk": b"HTTP/1.1 200 OK\r\n\r\n" + wav(),
    "with a chunk behind": wav(extra=b"LIST" + struct.pack("<I", 4) + b"INFO"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wav_is_read_to_its_real_end_whatever_its_header_says(tmp_path: Path, lie: str) -> None:
    choice = of(tmp_path / "a", LIES[lie])
    assert choice.length / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.01)
    assert min(likeness(choice)) > 0.99
    assert bool(choice.notes) == (lie not in ("after junk", "with a chunk behind"))


def test_a_mask_of_loudspeakers_costs_no_channel(tmp_path: Path) -> None:
    """An extensible header whose mask names only one of two channels, or neither left nor right."""
    plain = wav()
    for mask in (1, 4, 0, 0x600):
        fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, 2, RATE, RATE * 4, 4, 16, 22, 16, mask, 1)
        fmt += bytes.fromhex("000000001000800000aa00389b71")
        data = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + plain[36:]
        assert min(likeness(of(tmp_path / "a", data))) > 0.99


def test_samples_that_are_no_numbers_and_floats_above_full_scale(tmp_path: Path) -> None:
    broken = SIDES.copy()
    broken[4000::9000] = np.nan
    broken[5000::9000] = np.inf
    choice = of(tmp_path / "a", wav(broken, tag=3, bits=32))
    assert min(likeness(choice)) > 0.99
    assert choice.notes == ("A moment could not be read",)
    as_integers = of(tmp_path / "a", wav(SIDES * 32768, tag=3, bits=32))
    assert min(likeness(as_integers)) > 0.99
    clipped = of(tmp_path / "a", wav(SIDES * 4, tag=3, bits=32))
    assert min(likeness(clipped)) > 0.8


@pytest.mark.parametrize("form", ["mp3", "ogg", "flac", "aac", "mka"])
def test_what_is_damaged_in_the_middle_costs_itself(tmp_path: Path, form: str) -> None:
    data = bytearray(encode(tmp_path / "a", SIDES, form=form).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes((i * 197 + 41) % 256 for i in range(400))
    choice = of(tmp_path / "a", bytes(data))
    assert choice.length / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.3)
    # What comes after stays in time. In Matroska, FFmpeg drops the rest of the cluster, up to five seconds. In AAC, it
    # silently drops a frame with a damaged header, so the rest is one frame (0.1 s) early.
    assert min(likeness(choice)) > (0.7 if form in ("mka", "aac") else 0.85)
    assert "could not be read" in choice.notes[0]


@pytest.mark.parametrize("form", ["wav", "mp3", "ogg", "flac", "aac", "webm"])
def test_a_cut_end(tmp_path: Path, form: str) -> None:
    data = encode(tmp_path / "a", SIDES, form=form).read_bytes()
    choice = of(tmp_path / "a", data[: len(data) * 6 // 10])
    assert 0.4 * SECONDS < choice.length / SAMPLE_RATE < 0.75 * SECONDS
    assert min(likeness(choice)) > 0.9
    if form in ("wav", "flac"):
        assert any("promises 13.7 s" in note for note in choice.notes)


@pytest.mark.parametrize(
    ("first", "second"), [("wav", "wav"), ("mp3", "mp3"), ("ogg", "opus"), ("flac", "flac"), ("mka", "mka")]
)
def test_files_one_after_the_other(tmp_path: Path, first: str, second: str) -> None:
    """The second file has another rate."""
    one = encode(tmp_path / "a", SIDES, form=first).read_bytes()
    two = encode(tmp_path / "b", np.repeat(SIDES, 2, axis=0), form=second, rate=2 * RATE).read_bytes()
    choice = of(tmp_path / "a", one + two)
    assert choice.length / SAMPLE_RATE == pytest.approx(2 * SECONDS, abs=0.5)
    assert min(likeness(choice, np.concatenate([SIDES, SIDES]))) > 0.8
    assert "2 " in choice.notes[0]


@pytest.mark.parametrize("form", ["flac", "ogg", "mka"])
def test_bytes_before_the_file(tmp_path: Path, form: str) -> None:
    data = encode(tmp_path / "a", SIDES, form=form).read_bytes()
    assert min(likeness(of(tmp_path / "a", b"\0\0\r\n" + data))) > 0.9


def test_a_recorder_that_died_and_began_again(tmp_path: Path) -> None:
    choice = of(tmp_path / "a", wav(size=0) + wav(size=0xFFFFFFFF))
    assert choice.length / SAMPLE_RATE == pytest.approx(2 * SECONDS, abs=0.01)


def test_another_number_of_channels_in_the_middle(tmp_path: Path) -> None:
    """A stretch of one channel has no roles, and a stretch of two has roles."""
    half = len(SIDES) // 2
    choice = of(tmp_path / "a", wav(MONO[:half, None], channels=1) + wav(SIDES[half:]))
    assert choice.roles == ("agent", "customer", "unknown")
    wanted = np.zeros((len(SIDES), 3))
    wanted[half:, :2], wanted[:half, 2] = SIDES[half:], MONO[:half]
    assert min(likeness(choice, wanted)) > 0.99


def test_two_mono_tracks_are_two_people(tmp_path: Path) -> None:
    path = encode(tmp_path / "a", SIDES[:, :1], SIDES[:, 1:], form="mka")
    choice = read(path, "video/x-matroska", "")
    assert choice.roles == ("agent", "customer")
    assert min(likeness(choice)) > 0.99


USELESS = {
    "no byte": (b"", "empty \\(0 bytes\\)"),
    "a header alone": (wav(SIDES[:0]), "no audio in it: 44 bytes"),
    "a web page": (b"\xef\xbb\xbf\n<!DOCTYPE html><html><title>Log in</title></html>", "a web page, not to audio"),
    "a web page in UTF-16": ("<html><body>Ö</body></html>".encode("utf-16"), "a web page, not to audio"),
    "an answer of an API": (b'{"error": "the link has expired"}', "a JSON document, not to audio"),
    "an answer of a store": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "an XML document, not to audio",
    ),
    "a text": (b"not found", "text, not to audio"),
    "a playlist": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "text, not to audio"),
    "noise": (random.Random(3).randbytes(9000), "cannot be decoded"),
    "a rate of 1 Hz": (wav(SIDES[:2000], rate=1), "sample rate of 1 Hz"),
    "a rate of 4 GHz": (wav(SIDES[:2000], rate=4_000_000_000), "sample rate of 4000000000 Hz"),
    "65535 channels": (wav(SIDES[:2000], channels=65535), "65535 channels"),
    "no channel": (wav(SIDES[:2000], channels=0), "0 channels"),
}


@pytest.mark.parametrize("what", USELESS)
def test_what_is_no_recording_has_its_own_plain_reason(tmp_path: Path, what: str) -> None:
    data, reason = USELESS[what]
    with pytest.raises(UnreadableAudio, match=reason):
        of(tmp_path / "a", data)


def test_an_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    data = encode(tmp_path / "a", SIDES[:RATE], form="m4a").read_bytes()
    with pytest.raises(UnreadableAudio, match="cut off"):
        of(tmp_path / "a", data[: data.index(b"moov") - 4])


def test_a_flac_of_a_few_bytes_that_lasts_for_ever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length is known only after decoding. A limit of a minute stands for the real one of six hours."""
    monkeypatch.setattr(parts, "LONGEST_SECONDS", 60)
    soundfile.write(tmp_path / "a.flac", np.full(4000 * 90, 9000, np.int16), 4000)
    assert (tmp_path / "a.flac").stat().st_size < 10_000
    with pytest.raises(UnreadableAudio, match="is longer than"):
        read(tmp_path / "a.flac", "", "")
    with pytest.raises(UnreadableAudio, match="is longer than"):
        of(tmp_path / "a", wav(np.zeros((4000 * 90, 1)), rate=4000, channels=1))


@pytest.mark.parametrize("form", FORMATS)
def test_whatever_is_damaged_raises_nothing_but_the_reason(tmp_path: Path, form: str) -> None:
    whole = encode(tmp_path / "a", SIDES[: 4 * RATE], form=form).read_bytes()
    chance = random.Random(form)
    for _ in range(12):
        data = bytearray(whole)
        kind = chance.randrange(4)
        if kind == 0:
            data = data[: chance.randrange(len(data))]
        elif kind == 1:
            start = chance.randrange(len(data))
            del data[start : start + chance.randrange(4000)]
        else:
            among = len(data) if kind == 2 else min(200, len(data))
            for _ in range(chance.choice((1, 20, 200))):
                data[chance.randrange(among)] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
        try:
            choice = of(tmp_path / "a", bytes(data))
        except UnreadableAudio:
            continue
        assert choice.length <= 6 * 3600 * SAMPLE_RATE
