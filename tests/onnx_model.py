"""A tiny model with the files, inputs and outputs of IndicConformer. It hears low and high sounds.

Its weights are made here, so it proves loading, features and decoding, and nothing about recognition.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.transcription.log_mel import BANDS

STEP_FRAMES = 8
"""Frames of 10 ms for each step of the encoder, as in the real model."""
TOKENS = {"hi": ["<unk>", "▁नी", "चे", "▁ऊपर"], "ta": ["<unk>", "▁கீழ்", "மே", "▁மேல்"]}
_BLANK = 8
_SPLIT = 50
"""Bands below are low sounds."""


def write_model(folder: Path, *, rename_input: str = "audio_signal") -> Path:
    """Write the model. Low sounds are token 1, high sounds are token 3, and anything else is the blank."""
    assets = folder / "assets"
    assets.mkdir(parents=True)
    _save(assets / "encoder.onnx", _encoder(rename_input))
    _save(assets / "ctc_decoder.onnx", _decoder())
    (assets / "vocab.json").write_text(json.dumps(TOKENS))
    columns = {"hi": [0, 1, 2, 3, _BLANK], "ta": [4, 5, 6, 7, _BLANK]}
    masks = {code: [i in chosen for i in range(_BLANK + 1)] for code, chosen in columns.items()}
    (assets / "language_masks.json").write_text(json.dumps(masks))
    return folder


def _encoder(audio_signal: str) -> onnx.GraphProto:
    """Averages eight frames."""
    return helper.make_graph(
        [
            helper.make_node(
                "AveragePool", [audio_signal], ["outputs"], kernel_shape=[STEP_FRAMES], strides=[STEP_FRAMES]
            ),
            helper.make_node("Div", ["length", "step"], ["encoded_lengths"]),
        ],
        "encoder",
        [
            helper.make_tensor_value_info(audio_signal, TensorProto.FLOAT, [1, BANDS, None]),
            helper.make_tensor_value_info("length", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [1, BANDS, None]),
            helper.make_tensor_value_info("encoded_lengths", TensorProto.INT64, [1]),
        ],
        [numpy_helper.from_array(np.array([STEP_FRAMES], np.int64), "step")],
    )


def _decoder() -> onnx.GraphProto:
    weights = np.zeros((BANDS, _BLANK + 1), np.float32)
    for first in (0, 4):
        weights[:_SPLIT, first + 1] = 1 / _SPLIT
        weights[_SPLIT:, first + 3] = 1 / (BANDS - _SPLIT)
    bias = np.full(_BLANK + 1, -9, np.float32)
    bias[[1, 3, 5, 7, _BLANK]] = [0, 0, 0, 0, 0.5]
    return helper.make_graph(
        [
            helper.make_node("Transpose", ["encoder_output"], ["steps"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["steps", "weights"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], ["scores"]),
            helper.make_node("LogSoftmax", ["scores"], ["logprobs"], axis=2),
        ],
        "ctc_decoder",
        [helper.make_tensor_value_info("encoder_output", TensorProto.FLOAT, [1, BANDS, None])],
        [helper.make_tensor_value_info("logprobs", TensorProto.FLOAT, [1, None, _BLANK + 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
