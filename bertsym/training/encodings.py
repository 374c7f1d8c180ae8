"""The output of a frozen encoder for all windows, computed once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import numpy as np

from bertsym.array import Array
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

_CHUNK_ROWS = 4096  # rows per call of the encoder, which sorts them by length
_MAX_IN_MEMORY = 1 << 30  # bytes; larger encodings are stored in a temporary file


def encode(
    predict: Callable[[Features, Callable[[int], object]], Array], features: Features, on_rows: Callable[[int], object]
) -> Array:
    """Return the outputs for all windows, (windows, ...) float32; large ones are mapped from an unnamed temporary file.

    `predict` is called with some windows and with `on_rows`, which takes the number of windows in each finished batch.
    Raises OSError if the disk has too little space.
    """
    encodings: Array | None = None
    for start in range(0, len(features), _CHUNK_ROWS):
        chunk = predict(Features(features.examples[start : start + _CHUNK_ROWS]), on_rows)
        if encodings is None:
            shape = (len(features), *chunk.shape[1:])
            if chunk[0].nbytes * len(features) > _MAX_IN_MEMORY:
                with tempfile.TemporaryFile() as file:  # exists as long as it is mapped
                    # On a full disk this raises an error; writing to a mapped page would raise SIGBUS.
                    _allocate(file.fileno(), chunk[0].nbytes * len(features))
                    encodings = np.memmap(file, np.float32, "w+", shape=shape)
            else:
                encodings = np.empty(shape, np.float32)
        encodings[start : start + len(chunk)] = chunk
    assert encodings is not None
    return encodings


def encode_tokens(
    predictor: MXNetPredictor, features: Features, length: int, on_rows: Callable[[int], object]
) -> Array:
    """Return the encodings of all tokens, (N, length, U) float32, 0 at padding; `on_rows` is called as in `encode`."""

    def padded(encodings: Array, window: Encoded) -> Array:
        size = len(window.token_ids)
        row: Array = np.zeros((length, encodings.shape[1]), np.float32)
        row[:size] = encodings[:size]
        return row

    return np.stack(predictor.each(features, padded, on_rows))


def _allocate(file: int, size: int) -> None:
    """Reserve the blocks of an empty file; macOS and Windows have no call for that, so zeros are written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    block = bytes(1 << 20)
    while size > 0:
        size -= os.write(file, block[:size])
