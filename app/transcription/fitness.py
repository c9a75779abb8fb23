"""Which Whisper model makes usable text of which language. Pure.

The figures are public word error rates of models as they are, in percent, or our own measurements where that is said.
Of a language for which there is no figure, nothing is claimed.
"""

from dataclasses import dataclass
from pathlib import PurePath

from app.transcription.languages import NAMES, name_of

UNUSABLE_WER = 50.0
"""From this on, every second word is wrong, and the text means something else."""


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """A word error rate in percent. `speech` says what was recognized, `source` who measured it."""

    wer: float
    speech: str
    source: str


_MEASURED = "docs/speech.md"
FIGURES: dict[tuple[str, str], ErrorRate] = {
    ("tiny", "hi"): ErrorRate(102.3, "FLEURS", "Radford et al. 2022, arXiv 2212.04356, appendix D"),
    ("base", "hi"): ErrorRate(107.0, "synthetic telephone speech", _MEASURED),
    ("small", "hi"): ErrorRate(63.5, "Common Voice 11", "Hugging Face, Fine-Tune Whisper, 2022"),
    ("turbo", "hi"): ErrorRate(35.6, "FLEURS", "model cards of Hindi fine-tunes"),
    ("tiny.en", "en"): ErrorRate(8.0, "synthetic telephone speech", _MEASURED),
    ("base", "en"): ErrorRate(8.0, "synthetic telephone speech", _MEASURED),
}
"""By model and language."""

_SMALL = ("tiny", "base", "small")
_INDIAN = frozenset(NAMES) - {"en"}


def short_name(model: str) -> str:
    """A model's name in `FIGURES`: `turbo` for `large-v3-turbo`, the folder's name for a path."""
    name = PurePath(model).name if model.startswith((".", "/", "~")) else model
    return {"large-v3-turbo": "turbo"}.get(name, name.replace("--", "/"))


def is_english_only(model: str) -> bool:
    """Whether the name says that a model knows no other language."""
    return short_name(model).endswith(".en")


def why_unusable(model: str, language: str) -> str | None:
    """Why this model makes no usable text of the language, for a person. None if it does, or nobody has measured it."""
    name = short_name(model)
    if is_english_only(name):
        return None if language == "en" else f"the model {name} only knows English"
    figure = FIGURES.get((name, language))
    if figure is None and name in _SMALL and language in _INDIAN:
        return f"the model {name} does not make usable {name_of(language)} (it has learned less of it than of Hindi)"
    if figure is None or figure.wer < UNUSABLE_WER:
        return None
    return f"the model {name} does not make usable {name_of(language)} (word error rate {figure.wer:.0f} %)"
