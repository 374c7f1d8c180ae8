"""MXNet ``.params`` files: header first, arrays on demand, and an exact writer.

Layout (src/ndarray/ndarray.cc and include/mxnet/tuple.h of MXNet 1.9.1, little-endian)::

    u64 0x112 | u64 0 | u64 count | count arrays | u64 name count | names (u64 length, bytes)
    array V2: u32 0xF993FAC9, i32 storage type, i32 ndim, i64[ndim], i32 device type, i32 device id, i32 dtype
    array V1: u32 0xF993FAC8,                   i32 ndim, i64[ndim], i32 device type, i32 device id, i32 dtype

Everything is checked against the size of the file before it is used, because libmxnet itself allocates
or reads out of bounds on a damaged header.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bertsym.errors import ModelError
from bertsym.files import open_regular

Array = np.ndarray[Any, np.dtype[Any]]

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?"}
_FLAGS = {np.dtype(dtype): flag for flag, dtype in _DTYPES.items()}
_MAX_NDIM = 32
_MAX_ARRAYS = 1 << 20
_MAX_NAME = 4096


class Writable(Protocol):
    """A binary file, as far as writing needs it."""

    def write(self, data: Any, /) -> object:
        """Write bytes."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a file: its name without ``arg:``, shape, numpy dtype, place and size in bytes."""

    name: str
    kind: str  #: ``arg``, ``aux``, or empty in a file that names no kinds, as of gluon's save_parameters
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


class Parameters(Mapping[str, Array]):
    """Arrays by name (without ``arg:`` or ``aux:``), and what is known of them without reading them."""

    infos: dict[str, ArrayInfo]

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def auxiliary(self) -> list[str]:
        """Names of the auxiliary states."""
        return [name for name, info in self.infos.items() if info.kind == "aux"]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: info.shape for name, info in self.infos.items()}


class ParamsFile(Parameters):
    """A ``.params`` file as a mapping from name to a read-only array.

    Only the header is read at first; an array is a view of the mapped file and costs no memory of its own. The
    pages of one array are given back when the next one is asked for, and come again when it is still used.
    Raises ModelError when the file is missing, truncated, damaged or of a kind that can't be a model's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open_regular(self.path) as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ModelError(f"{self.path}: empty file") from None
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror}") from None
        self.infos = {info.name: info for info in _Reader(self.path, self._map).array_infos()}

    def __getitem__(self, name: str) -> Array:
        info = self.infos[name]
        self._map.madvise(mmap.MADV_DONTNEED)
        flat = np.frombuffer(self._map, np.dtype(info.dtype), math.prod(info.shape), info.offset)
        return flat.reshape(info.shape)


class NewParameters(Parameters):
    """Parameters that are not in a file yet; arrays of a ParamsFile stay views of it."""

    def __init__(self, arrays: Mapping[str, Array], auxiliary: Container[str] = ()) -> None:
        self._arrays = dict(arrays)
        self.infos = {
            name: ArrayInfo(name, "aux" if name in auxiliary else "arg", array.shape, array.dtype.str, 0, array.nbytes)
            for name, array in self._arrays.items()
        }

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]


class LazyParameters(Parameters):
    """Float32 parameters of known shapes, each read or made by `read` when it is asked for, and not kept."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Array]) -> None:
        self._read = read
        self.infos = {
            name: ArrayInfo(name, "arg", shape, "<f4", 0, 4 * math.prod(shape)) for name, shape in shapes.items()
        }

    def __getitem__(self, name: str) -> Array:
        self.infos[name]  # raises KeyError, as a mapping must
        return self._read(name)


def shapes_of(params: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Name -> shape; of Parameters without reading an array."""
    return params.shapes if isinstance(params, Parameters) else {name: array.shape for name, array in params.items()}


class _Reader:
    """Walks the header with bounds checks."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.position = path, data, 0

    def fail(self, why: str) -> ModelError:
        return ModelError(f"{self.path}: not a readable MXNet .params file: {why} at byte {self.position}")

    def skip(self, count: int, what: str) -> int:
        start = self.position
        if count < 0 or start + count > len(self.data):
            raise self.fail(f"truncated in {what}")
        self.position += count
        return start

    def unpack(self, layout: str, what: str) -> Any:
        start = self.skip(struct.calcsize("<" + layout), what)
        return struct.unpack_from("<" + layout, self.data, start)

    def array_infos(self) -> list[ArrayInfo]:
        magic, reserved, count = self.unpack("QQQ", "the header")
        if magic != _LIST_MAGIC:
            raise self.fail("wrong magic number")
        if reserved != 0 or count > _MAX_ARRAYS:
            raise self.fail("damaged header")
        arrays = [self.array_header(f"array {i + 1} of {count}") for i in range(count)]
        (name_count,) = self.unpack("Q", "the name count")
        if name_count != count:
            raise self.fail(f"{count} arrays but {name_count} names")
        infos: dict[str, ArrayInfo] = {}
        for shape, dtype, offset, nbytes in arrays:
            kind, name = self.name()
            if name in infos:
                raise self.fail(f"name {name!r} occurs twice")
            infos[name] = ArrayInfo(name, kind, shape, dtype, offset, nbytes)
        if self.position != len(self.data):
            raise self.fail("trailing bytes")
        return list(infos.values())

    def array_header(self, what: str) -> tuple[tuple[int, ...], str, int, int]:
        (magic,) = self.unpack("I", what)
        if magic == _V3:
            raise self.fail(f"{what} was saved under np_shape, which models don't use;")
        if magic not in (_V1, _V2):
            raise self.fail(f"{what} has an unknown format")
        if magic == _V2 and self.unpack("i", what) != (0,):
            raise self.fail(f"{what} is sparse, only dense arrays are supported;")
        (ndim,) = self.unpack("i", what)
        if not 1 <= ndim <= _MAX_NDIM:
            raise self.fail(f"{what} has {ndim} dimensions")
        shape = self.unpack(f"{ndim}q", what)
        if min(shape) < 1:
            raise self.fail(f"{what} has shape {shape}")
        _, _, flag = self.unpack("iii", what)
        if flag not in _DTYPES:
            raise self.fail(f"{what} has an unknown dtype {flag}")
        nbytes = math.prod(shape) * np.dtype(_DTYPES[flag]).itemsize
        return shape, _DTYPES[flag], self.skip(nbytes, what), nbytes

    def name(self) -> tuple[str, str]:
        (length,) = self.unpack("Q", "the names")
        if length > _MAX_NAME:
            raise self.fail("a name is too long")
        start = self.skip(length, "the names")
        try:
            text = self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("a name is not UTF-8") from None
        kind, colon, name = text.partition(":")
        return (kind, name) if colon and kind in ("arg", "aux") else ("", text)


def write_params(file: Writable, params: Mapping[str, Array], auxiliary: Container[str] = ()) -> None:
    """Write arrays as ``arg:NAME``, those in `auxiliary` as ``aux:NAME``, as MXNet's own ``nd.save`` does (V2, CPU).

    One array at a time: of a ParamsFile nothing is copied but what is being written. Raises ModelError for a
    dtype that MXNet has not, and for an array without dimensions or values.
    """
    file.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(params)))
    for name, array in params.items():
        flag = _FLAGS.get(array.dtype.newbyteorder("<"))
        if flag is None:
            raise ModelError(f"parameter {name} is {array.dtype}, which MXNet has not")
        if not array.ndim or not array.size:
            raise ModelError(f"parameter {name} has shape {array.shape}, which MXNet takes for none")
        file.write(struct.pack(f"<Iii{array.ndim}q", _V2, 0, array.ndim, *array.shape))
        file.write(struct.pack("<iii", 1, 0, flag))
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    file.write(struct.pack("<Q", len(params)))
    for name in params:
        encoded = f"{'aux' if name in auxiliary else 'arg'}:{name}".encode()
        file.write(struct.pack("<Q", len(encoded)) + encoded)
