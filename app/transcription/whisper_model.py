"""A Whisper model that detects a language without encoding anything twice. Importing it takes 0.4 s."""

import threading
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim


class DetectingModel(WhisperModel):  # type: ignore[misc]
    """Keeps what the encoder made of a window when its language is detected, and uses it when the window is recognized.

    The encoder takes most of the time, and faster-whisper's own detection runs it once more. What is kept belongs to
    the thread, so several recordings can be recognized at once.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._kept = threading.local()

    def language_probabilities(self, sound: npt.NDArray[np.float32]) -> dict[str, float]:
        """The probability of each language in a window. `sound`: 16 kHz, between -1 and 1, at most 30 s."""
        features = self.feature_extractor(sound)
        frames = min(self.feature_extractor.nb_max_frames, features.shape[-1] - 1)  # as when it is recognized
        window = pad_or_trim(features[..., :frames])
        encoded = self.encode(window)
        self._windows().append((window, encoded))
        (found,) = self.model.detect_language(encoded)
        return {token[2:-2]: float(probability) for token, probability in found}

    def encode(self, features: npt.NDArray[np.float32]) -> ctranslate2.StorageView:
        for window, encoded in self._windows():
            if np.array_equal(window, features):
                return encoded
        return super().encode(features)

    def forget(self) -> None:
        """Release what this thread has kept."""
        self._windows().clear()

    def _windows(self) -> list[tuple[npt.NDArray[np.float32], ctranslate2.StorageView]]:
        kept: list[tuple[npt.NDArray[np.float32], ctranslate2.StorageView]] = self._kept.__dict__.setdefault(
            "windows", []
        )
        return kept
