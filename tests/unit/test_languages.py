"""The language that a client names, in any spelling."""

import pytest

from app.transcription.pipeline import language_code


@pytest.mark.parametrize(
    ("asked", "code"),
    [("hi", "hi"), ("HI", "hi"), ("hi-en", "hi"), ("hi-IN", "hi"), ("hi_IN", "hi"), ("en-GB", "en"), ("es-419", "es")],
)
def test_engines_are_asked_by_iso_639_1(asked: str, code: str) -> None:
    assert language_code(asked) == code
