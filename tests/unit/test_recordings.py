import pytest

from app.recordings import audio_type


@pytest.mark.parametrize(
    ("said", "url", "kind"),
    [
        ("audio/x-wav", "https://pbx.example.com/a", "audio/x-wav"),
        ("application/octet-stream", "https://pbx.example.com/a.WAV?key=b.mp3", "audio/wav"),
        ("binary/octet-stream", "https://pbx.example.com/a.mp3", "audio/mpeg"),
        ("text/html", "https://pbx.example.com/a.html", "application/octet-stream"),
        ("application/octet-stream", "https://pbx.example.com/", "application/octet-stream"),
    ],
)
def test_what_a_fetched_recording_is(said: str, url: str, kind: str) -> None:
    assert audio_type(said, url) == kind
