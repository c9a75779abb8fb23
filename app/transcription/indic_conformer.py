"""Local recognition with IndicConformer, AI4Bharat's model for 22 languages of India, by onnxruntime.

The model is a folder as `ai4bharat/indic-conformer-600m-multilingual` publishes it. Of its `assets/`, these are used:

    encoder.onnx           audio_signal (1, 80, frames), length (1)  ->  outputs (1, width, steps), encoded_lengths (1)
    ctc_decoder.onnx       encoder_output (1, width, steps)  ->  logprobs (1, steps, all tokens and the blank)
    vocab.json             the tokens of each language; `▁` begins a word
    language_masks.json    which columns of logprobs are a language's; the last of them is the blank

The features are made in numpy (`log_mel`), so `preprocessor.ts` and PyTorch are not needed. The files of the RNNT
decoder are not used either.

The real weights were never run: they cannot be had without an account of the hub. The tests run small models with the
same files, inputs and outputs. Sources: the model's `model_onnx.py`, as public projects quote it.
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.options import Options
from app.transcription.base import SAMPLE_RATE, Audio, Recognition, Samples, SpeechRequest, TranscriptionError, Word
from app.transcription.languages import name_of
from app.transcription.log_mel import HOP, log_mel
from app.transcription.pieces import cut_into_pieces
from app.transcription.vad import LONGEST_SECONDS

_FILES = ("encoder.onnx", "ctc_decoder.onnx", "vocab.json", "language_masks.json")
_WORD_START = "▁"


class IndicConformerOptions(Options):
    """With `RINGBACK_RECOGNIZER=indicconformer`."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_INDICCONFORMER_")

    model: Path = Field(description="The folder of the model, which has `assets/encoder.onnx`")
    language: str = Field("hi", description="The language of a call whose client named none. It cannot be detected")
    device: Literal["cpu", "cuda"] = Field("cpu", description="`cpu`, or `cuda` with the package `onnxruntime-gpu`")
    threads: int = Field(1, ge=1, description="CPU threads of one recognition")


@dataclass(frozen=True, slots=True)
class _Language:
    tokens: tuple[str, ...]
    columns: npt.NDArray[np.intp]
    """Of the decoder's output. The last one is the blank."""


@dataclass(frozen=True, slots=True)
class _Model:
    encoder: Any
    """An `onnxruntime.InferenceSession`."""
    decoder: Any
    languages: dict[str, _Language]


class IndicConformerRecognizer:
    """One model, loaded when it is first needed. It recognizes up to `concurrency` recordings at once, with `threads`
    threads each."""

    def __init__(
        self, folder: Path, *, language: str = "hi", device: str = "cpu", threads: int = 1, concurrency: int = 1
    ) -> None:
        self.name = f"indicconformer {folder.name}"
        self._folder = folder
        self._language = language
        self._device = device
        self._threads = threads
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="indicconformer")
        self._loading = asyncio.Lock()
        self._model: _Model | None = None

    async def recognize(self, audio: Audio, request: SpeechRequest) -> Recognition:
        """Runs in a thread. Raises `TranscriptionError`, also for a language that the model does not know."""
        loop = asyncio.get_running_loop()
        async with self._loading:
            if self._model is None:
                self._model = await loop.run_in_executor(
                    self._executor, _load, self._folder, self._device, self._threads
                )
        spoken = next(iter(request.languages), self._language)
        return await loop.run_in_executor(self._executor, _recognize, self._model, audio, spoken)

    async def aclose(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._model = None


def _load(folder: Path, device: str, threads: int) -> _Model:
    assets = folder / "assets" if (folder / "assets").is_dir() else folder
    if missing := [name for name in _FILES if not (assets / name).is_file()]:
        raise TranscriptionError(
            f"There is no IndicConformer model in {folder}: {', '.join(missing)} is missing. "
            "Set RINGBACK_INDICCONFORMER_MODEL to the folder of its ONNX form"
        )
    import onnxruntime  # importing it takes time, and only a transcripts worker needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    if providers[0] not in onnxruntime.get_available_providers():
        raise TranscriptionError(
            "onnxruntime cannot use CUDA here. Install onnxruntime-gpu, or set RINGBACK_INDICCONFORMER_DEVICE=cpu"
        )
    try:
        encoder, decoder = (
            onnxruntime.InferenceSession(str(assets / name), sess_options=options, providers=providers)
            for name in _FILES[:2]
        )
        vocabulary, masks = (json.loads((assets / name).read_text("utf-8")) for name in _FILES[2:])
        languages = {
            code: _Language(tuple(map(str, vocabulary[code])), np.flatnonzero(np.asarray(mask, bool)))
            for code, mask in masks.items()
            if code in vocabulary
        }
    except Exception as error:  # onnxruntime's errors have no class of their own
        raise TranscriptionError(f"The speech model in {folder} cannot be loaded: {error}") from error
    for session, names in (
        (encoder, ({"audio_signal", "length"}, {"outputs"})),
        (decoder, ({"encoder_output"}, {"logprobs"})),
    ):
        inputs, outputs = ({each.name for each in part} for part in (session.get_inputs(), session.get_outputs()))
        if inputs != names[0] or not names[1] <= outputs:
            raise TranscriptionError(f"The model in {folder} is no IndicConformer: it has the inputs {sorted(inputs)}")
    if not languages or any(len(each.tokens) < len(each.columns) - 1 for each in languages.values()):
        raise TranscriptionError(f"In the model in {folder}, vocab.json and language_masks.json do not fit together")
    return _Model(encoder, decoder, languages)


def _recognize(model: _Model, audio: Audio, spoken: str) -> Recognition:
    channels: list[list[Word]] = [[] for _ in audio.channels]
    pieces = cut_into_pieces(audio.channels, longest_seconds=LONGEST_SECONDS)
    if pieces and spoken not in model.languages:
        raise TranscriptionError(
            f"The IndicConformer model does not recognize {name_of(spoken)}. Choose another recognizer "
            "(RINGBACK_RECOGNIZER)"
        )
    for piece in pieces:
        said = audio.channels[piece.channel][piece.first : piece.last]
        offset = piece.first / SAMPLE_RATE
        channels[piece.channel] += [
            Word(f" {text}", offset + start, min(offset + end, audio.duration))
            for text, start, end in _words(model, said, spoken)
        ]
    return Recognition(tuple(map(tuple, channels)), spoken if any(channels) else None)


def _words(model: _Model, samples: Samples, spoken: str) -> list[tuple[str, float, float]]:
    """(text, start, end) of the words. Seconds from the start of `samples`."""
    language = model.languages[spoken]
    features = log_mel(samples)
    try:
        (encoded,) = model.encoder.run(
            ["outputs"], {"audio_signal": features[None], "length": np.array([features.shape[1]], np.int64)}
        )
        (scores,) = model.decoder.run(["logprobs"], {"encoder_output": encoded})
    except Exception as error:  # onnxruntime's errors have no class of their own
        raise TranscriptionError(f"The speech model failed: {error}") from error
    if scores.shape[2] <= language.columns[-1]:
        raise TranscriptionError("The speech model's output and its language_masks.json do not fit together")
    step = features.shape[1] * HOP / SAMPLE_RATE / max(1, scores.shape[1])
    duration = len(samples) / SAMPLE_RATE
    return [
        (text, min(first * step, duration), min(last * step, duration))
        for text, first, last in decode(scores[0][:, language.columns], language.tokens)
    ]


def decode(scores: npt.NDArray[np.float32], tokens: Sequence[str]) -> list[tuple[str, int, int]]:
    """Greedy CTC decoding. `scores`: a row for each step, a column for each token, and the blank last. Returns the
    words as (text, first step, step after the last)."""
    blank = scores.shape[1] - 1
    best = scores.argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    words: list[tuple[str, int, int]] = []
    for start, end in pairwise([*starts, len(best)]):
        index = int(best[start])
        if index == blank or tokens[index] == "<unk>":
            continue
        token = tokens[index]
        if token.startswith(_WORD_START) or not words:
            words.append((token.removeprefix(_WORD_START), int(start), int(end)))
        else:
            text, first, _ = words[-1]
            words[-1] = (text + token, first, int(end))
    return [word for word in words if word[0]]
