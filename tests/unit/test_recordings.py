import pytest

from app.recordings import audio_type, storage_key, storage_keys
from app.transcription.decoding import files


@pytest.mark.parametrize(
    ("said", "url", "kind"),
    [
        ("audio/x-wav", "https://pbx.example.com/a", "audio/x-wav"),
        ("application/octet-stream", "https://pbx.example.com/a.WAV?key=b.mp3", "audio/wav"),
        ("binary/octet-stream", "https://pbx.example.com/a.mp3", "audio/mpeg"),
        ("text/html", "https://pbx.example.com/a.html", "application/octet-stream"),
        ("application/octet-stream", "https://pbx.example.com/", "application/octet-stream"),
        ("", "https://pbx.example.com/get?id=7&file=7.opus", "audio/opus"),
        ("video/x-matroska", "https://pbx.example.com/a", "video/x-matroska"),
        # Without a header in the file, the name decides, whatever the server says.
        ("audio/wav", "https://pbx.example.com/a.gsm", "audio/gsm"),
        ("audio/basic", "https://pbx.example.com/a.alaw", "audio/pcma"),
        ("text/plain", "https://pbx.example.com/a.sln16", "audio/x-sln;rate=16000"),
        ('audio/L16; rate="16000"; channels=2', "https://pbx.example.com/a.raw", "audio/l16;rate=16000;channels=2"),
        ("audio/mulaw", "https://pbx.example.com/a", "audio/mulaw"),
        ("audio/PCMU;rate=8000;x=<script>", "https://pbx.example.com/a", "audio/pcmu;rate=8000"),
    ],
)
def test_what_a_fetched_recording_is(said: str, url: str, kind: str) -> None:
    assert audio_type(said, url) == kind


def test_a_recording_is_found_again_wherever_its_type_put_it() -> None:
    types = {
        audio_type(said, "/") for said in ("audio/wav", "audio/gsm", "audio/L16;rate=8000", "video/mp4", "text/html")
    }
    assert {storage_key("call_0123456789abcdef", kind) for kind in types} <= set(storage_keys("call_0123456789abcdef"))


@pytest.mark.parametrize("kind", files._RAW_TYPES)
def test_a_type_that_alone_explains_a_file_reaches_the_decoder(kind: str) -> None:
    assert audio_type(kind, "https://pbx.example.com/a") == kind
