"""Bytes of .params files, whole or spoilt, put together by the tests themselves."""

from __future__ import annotations

import struct
from pathlib import Path

from bertsym import ParamsFile

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"]


def array_bytes(
    shape: tuple[int, ...] = (2, 3),
    data: bytes | None = None,
    magic: int = V2,
    storage: int = 0,
    ndim: int | None = None,
    dtype: int = 0,
) -> bytes:
    """One array as MXNet writes it, unless something else is asked for."""
    head = struct.pack("<I", magic) + (b"" if magic == V1 else struct.pack("<i", storage))
    head += struct.pack(f"<i{len(shape)}q", len(shape) if ndim is None else ndim, *shape)
    return head + struct.pack("<iii", 1, 0, dtype) + (bytes(range(24)) if data is None else data)


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
