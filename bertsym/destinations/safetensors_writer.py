"""Write safetensors files; ``sources/safetensors_file.py`` describes the layout."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.atomic_writing import DigestFile, write_file
from bertsym.symbol.params import shapes_of

_ALIGNMENT = 8  # bytes: the data begins at a multiple of it, as the format recommends


def write_safetensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write arrays as float32, in the order of their names, so that the same arrays give the same bytes.

    Arrays are read from the mapping one by one. Raises OSError.
    """
    shapes = shapes_of(arrays)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)

    def write(file: DigestFile) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(shapes):
            file.write(np.ascontiguousarray(arrays[name], "<f4").reshape(-1).view(np.uint8))

    write_file(path, write)
