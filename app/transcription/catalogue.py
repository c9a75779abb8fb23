"""Speech models for the languages of India, with public figures. For people: nothing here chooses a model.

WER is in percent, on Hindi. GramVaani is rural telephone speech, so it is nearest to calls. FLEURS is clean read
speech. Figures of different test sets cannot be compared, and none was measured here. What hardware a model wants is
estimated from its size.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["CTranslate2", "Transformers", "ONNX"]
"""How a model is published. Whisper needs CTranslate2's form, and others are converted to it."""


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model that can be had."""

    name: str
    """For `ringback models fetch`: a name of faster-whisper, or a hub repository. With an `url` it is neither."""
    languages: str
    form: Form
    gigabytes: float
    """Of the weights, as Ringback uses them (16 bits, or 32 in ONNX). About as much memory is needed."""
    hardware: str
    telephone_wer: str | None
    """On GramVaani."""
    other_wer: str
    """With the name of the test set."""
    is_checked: bool
    """Whether the figures were read at their source, or at a place that quotes it. Otherwise they are from hearsay."""
    source: str
    url: str | None = None
    """Where it is downloaded by hand."""

    @property
    def is_fetched(self) -> bool:
        """Whether `ringback models fetch` can get it."""
        return self.url is None


_GPU = "GPU with 4 GB, or patience"
_LARGE_GPU = "GPU with 6 GB"

CATALOGUE = (
    CatalogueModel(
        name="indicwhisper-medium-hi",
        languages="hi; one model for each of 12 languages",
        form="Transformers",
        gigabytes=1.5,
        hardware=_GPU,
        telephone_wer="26.8",
        other_wer="Vistaar average 13.6",
        is_checked=True,
        source="https://github.com/AI4Bharat/vistaar",
        url="https://github.com/AI4Bharat/vistaar",
    ),
    CatalogueModel(
        name="ai4bharat/indic-conformer-600m-multilingual",
        languages="22 languages of India, not English",
        form="ONNX",
        gigabytes=2.4,
        hardware="4 CPU cores, or a GPU with 4 GB",
        telephone_wer="24–28",
        other_wer="Vistaar average 14.1",
        is_checked=False,
        source="https://huggingface.co/ai4bharat/indic-conformer-600m-multilingual",
    ),
    CatalogueModel(
        name="collabora/whisper-large-v2-hindi",
        languages="hi",
        form="Transformers",
        gigabytes=3.1,
        hardware=_LARGE_GPU,
        telephone_wer=None,
        other_wer="FLEURS 5.3",
        is_checked=True,
        source="https://www.collabora.com/news-and-blog/news-and-events/"
        "breaking-language-barriers-20-moving-closer-production-ready-hindi-asr.html",
    ),
    CatalogueModel(
        name="vasista22/whisper-hindi-large-v2",
        languages="hi",
        form="Transformers",
        gigabytes=3.1,
        hardware=_LARGE_GPU,
        telephone_wer=None,
        other_wer="FLEURS 6.8",
        is_checked=True,
        source="https://huggingface.co/vasista22/whisper-hindi-large-v2",
    ),
    CatalogueModel(
        name="Oriserve/Whisper-Hindi2Hinglish-Prime",
        languages="Hinglish, all in Latin script",
        form="Transformers",
        gigabytes=3.1,
        hardware=_LARGE_GPU,
        telephone_wer=None,
        other_wer="FLEURS 28.7, Indic-Voices 60.8",
        is_checked=False,
        source="https://huggingface.co/Oriserve/Whisper-Hindi2Hinglish-Prime",
    ),
    CatalogueModel(
        name="large-v3",
        languages="99, also Hindi and English",
        form="CTranslate2",
        gigabytes=3.1,
        hardware=_LARGE_GPU,
        telephone_wer=None,
        other_wer="FLEURS 18 after training on Hindi",
        is_checked=False,
        source="https://huggingface.co/openai/whisper-large-v3",
    ),
    CatalogueModel(
        name="turbo",
        languages="99, also Hindi and English",
        form="CTranslate2",
        gigabytes=1.6,
        hardware=_GPU,
        telephone_wer=None,
        other_wer="FLEURS 35.6",
        is_checked=True,
        source="https://huggingface.co/openai/whisper-large-v3-turbo",
    ),
)
