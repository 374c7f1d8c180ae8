"""Files of embeddings, written row by row: NumPy's .npy, and JSON Lines."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from bertsym.array import Array
from bertsym.errors import UsageError

_HEADER = 128  # bytes, as numpy.save writes for two axes


class EmbeddingWriter(Protocol):
    """Writes embeddings to a file, one after the other."""

    def write(self, vector: Array | None) -> None:
        """Write the vector of a text, (U,) float32; None for a text without one."""

    def finish(self) -> None:
        """Complete the file."""


class NpyWriter:
    """Writes an array (rows, U) float32 as numpy.save does; a text without a vector is a row of NaN.

    The file must be seekable: the number of rows is written last.
    """

    def __init__(self, file: BinaryIO, units: int) -> None:
        self._file, self._units, self._rows = file, units, 0
        file.write(self._header())

    def write(self, vector: Array | None) -> None:
        """Append a row."""
        row = np.full(self._units, np.nan, "<f4") if vector is None else vector.astype("<f4", copy=False)
        self._file.write(row.tobytes())
        self._rows += 1

    def finish(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._file.write(self._header())
        self._file.seek(0, 2)

    def _header(self) -> bytes:
        shape = f"({self._rows}, {self._units})"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        size = _HEADER - len(_MAGIC) - 2
        return _MAGIC + struct.pack("<H", size) + text.ljust(size - 1).encode("ascii") + b"\n"


class JsonLinesWriter:
    """Writes one JSON object per text, ``{"embedding": [...]}``; null for a text without a vector."""

    def __init__(self, file: BinaryIO, units: int) -> None:
        self._file = file

    def write(self, vector: Array | None) -> None:
        """Append a line; nine digits identify a float32."""
        numbers = "null" if vector is None else f"[{', '.join([f'{element:.9g}' for element in vector.tolist()])}]"
        self._file.write(f'{{"embedding": {numbers}}}\n'.encode("ascii"))

    def finish(self) -> None:
        """Nothing is left to write."""


_MAGIC = b"\x93NUMPY\x01\x00"
#: suffix of a file -> its writer
_WRITERS: dict[str, type[NpyWriter] | type[JsonLinesWriter]] = {".npy": NpyWriter, ".jsonl": JsonLinesWriter}


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file whose suffix has no format."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path}: the name of a file of embeddings ends in {' or '.join(_WRITERS)}")


def open_writer(path: Path, file: BinaryIO, units: int) -> EmbeddingWriter:
    """Return the writer of vectors of `units` elements, in the format that the suffix of `path` chooses."""
    return _WRITERS[path.suffix.lower()](file, units)
