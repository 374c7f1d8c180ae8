"""Read safetensors files: the header is checked before any allocation of its size, tensors are read on demand.

Layout (https://github.com/huggingface/safetensors#format), little-endian::

    u64 header length | header: JSON, NAME -> dtype, shape, data_offsets [begin, end] | data, without gaps
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.families import printable
from bertsym.file_reader import open_regular, refuse_lfs_pointer
from bertsym.json_reader import JsonValue, json_object

#: Maximal number of tensors in all shards of a checkpoint: eight times that of the largest BERT that a config may
#: declare (256 layers, 4,103 tensors and its heads). BERT large has 391.
MAX_TENSORS = 1 << 15
#: Maximal size of a header in bytes, 256 for each tensor. BERT large has 45 KB; the format itself allows 100 MB.
MAX_HEADER = MAX_TENSORS << 8

# dtype of safetensors -> dtype of numpy. numpy has no bfloat16, the upper half of a float32: it is read as uint16.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
_MAX_DIMENSIONS = 32  # the limit of numpy


@dataclass(frozen=True)
class _Tensor:
    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  #: offset in the file
    end: int


class SafetensorsFiles(Mapping[str, Array]):
    """The tensors of one or more files by name, read from the files on demand.

    The headers of all files are read and checked first: names, dtypes, and sizes that must add up to the file size.

    Raises ModelError, naming the file, for a file that is missing, damaged, truncated, a Git LFS pointer or beyond the
    limits, for a tensor in two files, and for an unsupported dtype.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._tensors: dict[str, _Tensor] = {}
        for path in paths:
            tensors = _read_header(path)
            twice = self._tensors.keys() & tensors.keys()
            if twice:
                raise ModelError(f"{path}: {printable(min(twice))} is in another shard too")
            self._tensors.update(tensors)
            _check_count(path, len(self._tensors))

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        count = math.prod(tensor.shape)
        flat = np.fromfile(tensor.path, _DTYPES[tensor.dtype], count, offset=tensor.begin)
        if len(flat) != count:
            raise ModelError(f"{tensor.path}: the file became shorter while it was read")
        if tensor.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TENSORS:
        raise ModelError(f"{path}: {count} tensors, at most {MAX_TENSORS} are supported")


def _read_header(path: Path) -> dict[str, _Tensor]:
    text, data_start, size = _header_text(path)
    # Counted in the text: the Python objects of one entry take about a kilobyte.
    _check_count(path, text.count(b'"data_offsets"'))
    try:
        header = json_object(text.decode("utf-8"), f"{path}: header")
    except UnicodeDecodeError:
        raise _damaged(path, "the header is not UTF-8 text") from None
    for _, value in header.get("__metadata__", {}).items():
        value.text()
    tensors = {name: _tensor(path, entry, data_start) for name, entry in header.items() if name != "__metadata__"}
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise _damaged(path, f"{printable(name)} begins at byte {tensor.begin}, not at {position}")
        position = tensor.end
    if position != size:
        raise _damaged(path, f"the tensors end at byte {position}, the file at {size}")
    return tensors


def _header_text(path: Path) -> tuple[bytes, int, int]:
    """Read the header; returns also the offset of the data and the size of the file."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(64)
            refuse_lfs_pointer(path, start)
            length = struct.unpack_from("<Q", start)[0] if len(start) >= 8 else 0
            if not 2 <= length <= size - 8:
                raise _damaged(path, f"a header of {length} bytes in a file of {size}")
            if length > MAX_HEADER:
                raise ModelError(f"{path}: a header of {length} bytes, at most {MAX_HEADER} are supported")
            file.seek(8)
            return file.read(length), 8 + length, size
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _tensor(path: Path, entry: JsonValue, data_start: int) -> _Tensor:
    dtype = entry["dtype"].text()
    if dtype not in _DTYPES:
        raise entry.fault(f"dtype {printable(dtype)} is not supported")
    shape = tuple(size.integer(0) for size in entry["shape"].elements(0, _MAX_DIMENSIONS))
    begin, end = (offset.integer(0) for offset in entry["data_offsets"].elements(2, 2))
    needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if needed != end - begin:
        raise entry.fault(f"{end - begin} bytes of data, but {dtype} of shape {shape} needs {needed}")
    return _Tensor(path, dtype, shape, data_start + begin, data_start + end)


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path}: damaged or truncated safetensors: {why}")
