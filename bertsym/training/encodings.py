"""What a frozen encoder gives for every row, computed once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import numpy as np

from bertsym.symbol.params import Array
from bertsym.text.features import Features

_ROWS = 4096  # computed together, sorted by length
_IN_MEMORY = 1 << 30  # bytes; more are kept in a temporary file


def encode(predict: Callable[[Features], Array], features: Features) -> Array:
    """The outputs for all rows, (rows, ...) float32, in a file without a name where they are large.

    Raises OSError where the disk has no room for it.
    """
    encodings: Array | None = None
    for start in range(0, len(features), _ROWS):
        some = predict(Features(features.examples[start : start + _ROWS]))
        if encodings is None:
            shape = (len(features), *some.shape[1:])
            if some[0].nbytes * len(features) > _IN_MEMORY:
                with tempfile.TemporaryFile() as file:  # which stays as long as it is mapped
                    # Where the disk is full, an error now, and no signal when a page is written.
                    os.posix_fallocate(file.fileno(), 0, some[0].nbytes * len(features))
                    encodings = np.memmap(file, np.float32, "w+", shape=shape)
            else:
                encodings = np.empty(shape, np.float32)
        encodings[start : start + len(some)] = some
    assert encodings is not None
    return encodings
