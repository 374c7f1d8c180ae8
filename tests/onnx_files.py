"""ONNX files as a program without bertsym sees them, beside what mxnet alone computes from the symbol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import computed

from bertsym.array import Array

SHAPES = ((1, 5), (4, 13), (3, 40))  #: batch size and length


def session(path: Path) -> Any:
    """The file in onnxruntime."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs, for inputs in any dtype."""
    opened = session(path)
    kinds = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
    found: list[Array] = opened.run(
        None, {one.name: np.asarray(inputs[one.name], kinds[one.type]) for one in opened.get_inputs()}
    )
    return found


def token_inputs(batch: int, length: int, vocabulary: int) -> dict[str, Array]:
    """Random texts, of which all but the first are padded."""
    rng = np.random.default_rng(batch * length)
    lengths = np.maximum(1, length - 3 * np.arange(batch))
    there = np.arange(length) < lengths[:, None]
    return {
        "data0": (rng.integers(vocabulary, size=(batch, length)) * there).astype(np.float32),
        "data1": (rng.integers(2, size=(batch, length)) * there).astype(np.float32),
        "data2": lengths.astype(np.float32),
    }


def assert_as_mxnet(path: Path, prefix: Path, inputs: Mapping[str, Array]) -> None:
    """Every output of the file is within 1e-5 of the scale of mxnet's."""
    expected, found = computed(prefix, inputs), run(path, inputs)
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found):
        assert one.shape == other.shape
        assert np.abs(one).max() > 0
        assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()
