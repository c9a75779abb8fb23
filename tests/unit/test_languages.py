"""The language that a client names, in any spelling."""

import pytest

from app.transcription.languages import languages_of


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ("hi", ["hi"]),
        ("HI", ["hi"]),
        (" hi-IN ", ["hi"]),
        ("hi_IN", ["hi"]),
        ("en-in", ["en"]),
        ("en-GB", ["en"]),
        ("en-CA", ["en"]),
        ("pt-br", ["pt"]),
        ("es-419", ["es"]),
        ("hi-en", ["hi", "en"]),
        ("hi_EN", ["hi", "en"]),
        ("en-hi", ["en", "hi"]),
        ("ta-en", ["ta", "en"]),
        ("en-en", ["en"]),
        ("mai", ["mai"]),
        (None, []),
        ("", []),
        ("auto", []),
        ("हिन्दी", []),
        ("-", []),
    ],
)
def test_engines_are_asked_by_iso_639(asked: str | None, codes: list[str]) -> None:
    assert list(languages_of(asked)) == codes
