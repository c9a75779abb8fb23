"""Languages that are spoken, in ISO 639-1. Pure."""

NAMES = {
    "as": "Assamese",
    "bn": "Bengali",
    "en": "English",
    "gu": "Gujarati",
    "hi": "Hindi",
    "kn": "Kannada",
    "ml": "Malayalam",
    "mr": "Marathi",
    "ne": "Nepali",
    "or": "Odia",
    "pa": "Punjabi",
    "sa": "Sanskrit",
    "sd": "Sindhi",
    "ta": "Tamil",
    "te": "Telugu",
    "ur": "Urdu",
}
"""The languages of India, for people. Others are called by their code."""


def name_of(language: str) -> str:
    """The language's name for people."""
    return NAMES.get(language, f"the language {language!r}")


def languages_of(asked: str | None) -> tuple[str, ...]:
    """What a client asks for: `hi` for `hi`, `hi-IN` and `HI_in`; Hindi and English for `hi-en`. Nothing for None and
    for what is no language."""
    first, _, second = (asked or "").strip().casefold().replace("_", "-").partition("-")
    if not (len(first) in (2, 3) and first.isascii() and first.isalpha()):
        return ()
    # Otherwise the second part is a region: `es-419`, `en-CA`.
    is_mixed = first != second and ((second == "en") or (first == "en" and second in NAMES))
    return (first, second) if is_mixed else (first,)
