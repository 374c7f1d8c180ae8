"""The header of a ``.params`` file: name, kind, shape, dtype and offset of every array, without reading the arrays.

Layout (src/ndarray/ndarray.cc and include/mxnet/tuple.h of MXNet 1.9.1, little-endian)::

    u64 0x112 | u64 0 | u64 count | count arrays | u64 name count | names (u64 length, bytes)
    array V3: u32 0xF993FACA, as V2 but never sparse; MXNet writes it under np_shape
    array V2: u32 0xF993FAC9, i32 storage type, i32 ndim, i64[ndim], i32 device type, i32 device id, i32 dtype, data
    array V1: u32 0xF993FAC8,                   i32 ndim, i64[ndim], i32 device type, i32 device id, i32 dtype, data
    array V0:                                   u32 ndim, u32[ndim], i32 device type, i32 device id, i32 dtype, data

V0 is the layout of MXNet before 0.11, V1 that before 1.0. A sparse V2 array (row_sparse has one index array, csr has
two: row starts, then columns) stores the shape of its elements before its own, and after its dtype the dtype and the
shape of each index array; the elements and the index arrays follow.

Every size is checked against the size of the file before it is used, because libmxnet itself allocates or reads out of
bounds on a damaged header. The sizes must add up to that of the file: an array of V0 has no other mark.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
#: number in a file -> dtype
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?"}
#: in one file; DenseNet-201, the deepest network counted in MXNet's model zoo, has 1,006, and a BERT has 16 per layer
MAX_ARRAYS = 1 << 14
#: of all sparse arrays of a file, converted to dense ones; a token embedding of 250,000 x 1024 takes half of it
MAX_DENSE_BYTES = 1 << 31

_MAX_NDIM = 32
_MAX_NAME = 4096
_ROW_SPARSE, _CSR = 1, 2
_STORAGE = {_ROW_SPARSE: "row_sparse", _CSR: "csr"}
# Advice for an array that only MXNet's numpy operators can read.
_SCALAR = (
    "; a parameter of a symbol has at least one axis and one element: reshape a scalar to (1,), then save it again"
)
_INDEX_ARRAYS = {_ROW_SPARSE: 1, _CSR: 2}


@dataclass(frozen=True)
class Place:
    """The location of elements in a file."""

    shape: tuple[int, ...]
    dtype: str
    offset: int

    def read(self, data: mmap.mmap | bytes) -> Array:
        """Return the elements as a view of the file."""
        return np.frombuffer(data, np.dtype(self.dtype), math.prod(self.shape), self.offset).reshape(self.shape)


@dataclass(frozen=True)
class Sparse:
    """The parts of a sparse array: its elements and their indices."""

    storage: str  #: ``row_sparse`` or ``csr``
    elements: Place
    indices: tuple[Place, ...]


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a file: its name without ``arg:``, shape, numpy dtype, offset and size in bytes."""

    name: str
    #: ``arg``, ``aux``, or empty, as in the file. Gluon's save_parameters writes none, and some programs a wrong one:
    #: the graph decides (`symbol.variable_roles.auxiliary_states`).
    kind: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int  #: of the dense array
    sparse: Sparse | None = None


def read_header(path: Path, data: mmap.mmap | bytes) -> list[ArrayInfo]:
    """Read the header of a mapped file; raises ModelError, naming `path`, for a damaged or wrong file."""
    return _Reader(path, data).array_infos()


def read_array(data: mmap.mmap | bytes, info: ArrayInfo) -> Array:
    """Return one array, read-only: a view of the file, or a new dense array for a sparse one."""
    if info.sparse is None:
        return Place(info.shape, info.dtype, info.offset).read(data)
    elements, indices = info.sparse.elements.read(data), [place.read(data) for place in info.sparse.indices]
    dense = np.zeros(info.shape, info.dtype)
    if info.sparse.storage == "row_sparse":
        dense[indices[0]] = elements
    else:
        starts, columns = indices
        dense[np.repeat(np.arange(len(dense)), np.diff(starts)), columns] = elements
    dense.flags.writeable = False
    return dense


class _Reader:
    """Walks the header with bounds checks."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self.path, self.data, self.position = path, data, 0
        self.dense_bytes = 0

    def error(self, why: str, fix: str = "") -> ModelError:
        return ModelError(f"{self.path}: not a readable MXNet .params file: {why} at byte {self.position}{fix}")

    def skip(self, count: int, what: str) -> int:
        start = self.position
        if count < 0 or start + count > len(self.data):
            raise self.error(f"truncated in {what}")
        self.position += count
        return start

    def unpack(self, layout: str, what: str) -> Any:
        start = self.skip(struct.calcsize("<" + layout), what)
        return struct.unpack_from("<" + layout, self.data, start)

    def array_infos(self) -> list[ArrayInfo]:
        magic, reserved, count = self.unpack("QQQ", "the header")
        if magic != LIST_MAGIC:
            raise self.error("wrong magic number")
        if reserved != 0:
            raise self.error("damaged header")
        if count > MAX_ARRAYS:
            raise self.error(f"{count} arrays, above the limit of {MAX_ARRAYS},")
        arrays = [self.array_header(f"array {i + 1} of {count}") for i in range(count)]
        (name_count,) = self.unpack("Q", "the name count")
        if name_count != count:
            raise self.error(f"{count} arrays but {name_count} names")
        infos: dict[str, ArrayInfo] = {}
        for place, nbytes, sparse in arrays:
            kind, name = self.name()
            if name in infos:
                raise self.error(f"name {name!r} occurs twice")
            infos[name] = ArrayInfo(name, kind, place.shape, place.dtype, place.offset, nbytes, sparse)
        if self.position != len(self.data):
            raise self.error("trailing bytes")
        return list(infos.values())

    def array_header(self, what: str) -> tuple[Place, int, Sparse | None]:
        """Read the location of an array (unset for a sparse one), its dense size, and the parts of a sparse one."""
        (magic,) = self.unpack("I", what)
        (storage,) = self.unpack("i", what) if magic in (V2, V3) else (0,)
        if storage not in (0, *_STORAGE) or (storage and magic == V3):
            raise self.error(f"{what} has an unknown storage type {storage}")
        stored = self.shape(what, least=0) if storage else ()
        if magic in (V1, V2):
            shape = self.shape(what)
        elif magic == V3:
            shape = self.shape(f"{what}, saved under np_shape,", fix=_SCALAR)
        elif 1 <= magic <= _MAX_NDIM:
            shape = self.sizes(magic, "I", what)
        else:
            raise self.error(f"{what} has an unknown format")
        _, _, flag = self.unpack("iii", what)
        dtype = self.dtype(flag, what)
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if storage:
            return Place(shape, dtype, 0), nbytes, self.sparse(storage, Place(stored, dtype, 0), shape, nbytes, what)
        return Place(shape, dtype, self.skip(nbytes, what)), nbytes, None

    def shape(self, what: str, least: int = 1, fix: str = "") -> tuple[int, ...]:
        (ndim,) = self.unpack("i", what)
        if not 1 <= ndim <= _MAX_NDIM:
            raise self.error(f"{what} has {ndim} dimensions", fix)
        return self.sizes(ndim, "q", what, least, fix)

    def sizes(self, ndim: int, code: str, what: str, least: int = 1, fix: str = "") -> tuple[int, ...]:
        sizes: tuple[int, ...] = self.unpack(f"{ndim}{code}", what)
        if min(sizes) < least:
            raise self.error(f"{what} has shape {sizes}", fix)
        return sizes

    def dtype(self, flag: int, what: str) -> str:
        if flag not in DTYPES:
            raise self.error(f"{what} has an unknown dtype {flag}")
        return DTYPES[flag]

    def sparse(self, storage: int, stored: Place, shape: tuple[int, ...], nbytes: int, what: str) -> Sparse:
        """Read the parts of a sparse array and check that they fit its `shape` and each other."""
        what = f"{what}, which is {_STORAGE[storage]},"
        headers = []
        for _ in range(_INDEX_ARRAYS[storage]):
            dtype = self.dtype(self.unpack("i", what)[0], what)
            if np.dtype(dtype).kind != "i":
                raise self.error(f"{what} has indices of the dtype {np.dtype(dtype)}")
            headers.append((self.shape(what, least=0), dtype))
        self.dense_bytes += nbytes
        if self.dense_bytes > MAX_DENSE_BYTES:
            raise self.error(f"{what} would take the dense arrays above {MAX_DENSE_BYTES >> 20} MiB")
        count = stored.shape[0]
        expected = [(count,)] if storage == _ROW_SPARSE else [(shape[0] + 1,), (count,)]
        elements = (count, *shape[1:]) if storage == _ROW_SPARSE else (count,)
        if (
            (storage == _CSR and len(shape) != 2)
            or stored.shape != elements
            or [each for each, _ in headers] != expected
        ):
            raise self.error(f"{what} has parts that do not fit its shape {shape}")
        places = []
        for part, dtype in ((stored.shape, stored.dtype), *headers):
            places.append(Place(part, dtype, self.skip(math.prod(part) * np.dtype(dtype).itemsize, what)))
        if not _are_indices([place.read(self.data) for place in places[1:]], shape):
            raise self.error(f"{what} has indices that are out of order or out of range")
        return Sparse(_STORAGE[storage], places[0], tuple(places[1:]))

    def name(self) -> tuple[str, str]:
        (length,) = self.unpack("Q", "the names")
        if length > _MAX_NAME:
            raise self.error("a name is too long")
        start = self.skip(length, "the names")
        try:
            text = self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8") from None
        kind, colon, name = text.partition(":")
        return (kind, name) if colon and kind in ("arg", "aux") else ("", text)


def _are_indices(indices: list[Array], shape: tuple[int, ...]) -> bool:
    """Whether row numbers, or row starts and columns, are inside `shape` and strictly ascending."""
    *starts, places = (array.astype(np.int64) for array in indices)
    limit = shape[len(starts)]
    if places.size and not (places.min() >= 0 and places.max() < limit):
        return False
    if not starts:
        return bool((np.diff(places) > 0).all())
    if starts[0][0] != 0 or starts[0][-1] != places.size or (np.diff(starts[0]) < 0).any():
        return False
    rows = np.repeat(np.arange(shape[0]), np.diff(starts[0]))
    return bool((np.diff(rows * limit + places) > 0).all())
