"""The outcome of a conversation by a trained classifier. See docs/outcomes.md for its corpus and figures.

The head is linear in `features`, trained by ridge regression. `python -m tools.outcome.train` makes it from the corpus
of `tools/outcome`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.transcription.base import SpokenTurn
from app.transcription.features import features

_HEAD = Path(__file__).parent / "outcome_head.npz"


@dataclass(frozen=True, slots=True)
class Head:
    """Weights (features × classes), biases, and what they were made from."""

    classes: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    meta: dict[str, Any]


@lru_cache(maxsize=1)
def head() -> Head:
    """The trained head, loaded once."""
    with np.load(_HEAD) as stored:
        meta = json.loads(str(stored["meta"]))
        weights, bias = stored["weights"].astype(np.float32), stored["bias"]
    return Head(tuple(meta["classes"]), weights, bias, meta)


def probabilities(turns: Sequence[SpokenTurn]) -> dict[str, float]:
    """How likely each class of the corpus is for this conversation. They sum to 1. Raises `TranscriptionError` if the
    sentence model is missing."""
    trained = head()
    scores = features(turns) @ trained.weights + trained.bias
    exponents = np.exp(scores - scores.max())
    shares = exponents / exponents.sum()
    return {name: float(share) for name, share in zip(trained.classes, shares, strict=True)}
