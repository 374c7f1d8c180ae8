"""Bytes of .params files, valid or corrupt, put together by the tests themselves."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from bertsym import ParamsFile

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]


def array_bytes(
    shape: tuple[int, ...] = (2, 3),
    data: bytes | None = None,
    magic: int | None = V2,
    storage: int = 0,
    ndim: int | None = None,
    dtype: int = 0,
) -> bytes:
    """One array as MXNet writes it, unless something else is asked for; without `magic` as MXNet before 0.11 did."""
    if magic is None:
        head = struct.pack(f"<I{len(shape)}I", len(shape), *shape)
    else:
        head = struct.pack("<I", magic) + (b"" if magic == V1 else struct.pack("<i", storage))
        head += struct.pack(f"<i{len(shape)}q", len(shape) if ndim is None else ndim, *shape)
    return head + struct.pack("<iii", 1, 0, dtype) + (bytes(range(24)) if data is None else data)


def sparse_bytes(
    shape: tuple[int, ...], rows: list[int], stored: tuple[int, ...] | None = None, index_dtype: int = 6
) -> bytes:
    """A row_sparse array of float32 zeros at `rows`; the elements have the shape `stored`."""
    stored = (len(rows), *shape[1:]) if stored is None else stored
    return _sparse_bytes(1, shape, stored, [(index_dtype, rows)])


def csr_bytes(shape: tuple[int, ...], starts: list[int], columns: list[int]) -> bytes:
    """A csr array of float32 zeros."""
    return _sparse_bytes(2, shape, (len(columns),), [(6, starts), (6, columns)])


def _sparse_bytes(
    storage: int, shape: tuple[int, ...], stored: tuple[int, ...], indices: list[tuple[int, list[int]]]
) -> bytes:
    head = struct.pack("<Ii", V2, storage)
    for sizes in (stored, shape):
        head += struct.pack(f"<i{len(sizes)}q", len(sizes), *sizes)
    head += struct.pack("<iii", 1, 0, 0)
    for dtype, array in indices:
        head += struct.pack("<iiq", dtype, 1, len(array))
    return head + bytes(4 * math.prod(stored)) + b"".join(struct.pack(f"<{len(a)}q", *a) for _, a in indices)


def name_bytes(name: str | bytes, length: int | None = None) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def file_bytes(
    *arrays: bytes,
    names: tuple[bytes, ...] | None = None,
    magic: int = 0x112,
    reserved: int = 0,
    count: int | None = None,
    name_count: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A whole file of these arrays, named arg:w0, arg:w1 ..."""
    if names is None:
        names = tuple(name_bytes(f"arg:w{i}") for i in range(len(arrays)))
    head = struct.pack("<QQQ", magic, reserved, len(arrays) if count is None else count)
    middle = struct.pack("<Q", len(names) if name_count is None else name_count)
    return head + b"".join(arrays) + middle + b"".join(names) + tail


def opened(folder: Path, content: bytes) -> ParamsFile:
    path = folder / "x.params"
    path.write_bytes(content)
    return ParamsFile(path)
