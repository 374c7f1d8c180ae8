"""Read and write MXNet ``.params`` files: the header first, arrays on demand; `params_header` has the layout."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import shutil
import struct
import tempfile
import weakref
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.file_reader import CAN_MOVE_OPEN, open_regular, refuse_lfs_pointer
from bertsym.symbol.params_header import (
    DTYPES,
    LIST_MAGIC,
    V2,
    read_array,
    read_header,
)
from bertsym.symbol.params_header import ArrayInfo as ArrayInfo

_FLAGS = {np.dtype(dtype): flag for flag, dtype in DTYPES.items()}
_POINTER = 64  # bytes that identify a Git LFS pointer


class Writable(Protocol):
    """A binary file that can be written."""

    def write(self, data: Any, /) -> object:
        """Write bytes."""


class Parameters(Mapping[str, Array]):
    """Arrays by name (without ``arg:`` or ``aux:``), with shapes and dtypes that are known without reading them."""

    infos: dict[str, ArrayInfo]

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: info.shape for name, info in self.infos.items()}


class ParamsFile(Parameters):
    """A ``.params`` file as a mapping from name to a read-only array.

    Opening reads the header only. An array is a view of the mapped file and takes no memory of its own; a sparse array
    is converted to a dense one on each access. The pages of an array are released when the next one is read, and read
    again when the array is used later.

    The file stays open, so replacing the file at the path has no effect. Windows can't replace open files: the whole
    file is read into memory there. With the `descriptor` of an open file, the path appears in messages only. Raises
    ModelError when the file is missing, truncated, damaged or not a parameter file.
    """

    def __init__(self, path: str | Path, descriptor: int | None = None) -> None:
        self.path = Path(path)
        try:
            with contextlib.ExitStack() as stack:
                if descriptor is None:
                    descriptor = stack.enter_context(open_regular(self.path)).fileno()
                self._map: mmap.mmap | bytes
                if CAN_MOVE_OPEN:
                    self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
                    self._descriptor = os.dup(descriptor)
                    weakref.finalize(self, os.close, self._descriptor)
                else:
                    self._map, self._descriptor = _read(descriptor), -1
        except ValueError:
            raise ModelError(f"{self.path}: empty file") from None
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror}") from None
        refuse_lfs_pointer(self.path, self._map[:_POINTER])
        self.infos = {info.name: info for info in read_header(self.path, self._map)}

    def __getitem__(self, name: str) -> Array:
        info = self.infos[name]
        self._release_pages()
        return read_array(self._map, info)

    @property
    def sparse(self) -> list[str]:
        """Names and storage types of the sparse arrays, which are read as dense ones."""
        return [f"{info.name} ({info.sparse.storage})" for info in self.infos.values() if info.sparse is not None]

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self._map)

    @contextlib.contextmanager
    def at_path(self) -> Iterator[Path]:
        """A path to this open file for other readers, even when `path` was replaced; without /proc, to a copy of it."""
        link = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        if os.access(link, os.R_OK):
            yield Path(link)
            return
        folder = tempfile.mkdtemp(prefix="bertsym-")
        try:
            copy = Path(folder, "copy.params")
            with open(copy, "wb") as file:  # closed before it is read: Windows opens some files only once
                for start in range(0, len(self._map), 1 << 20):
                    file.write(self._map[start : start + (1 << 20)])
            yield copy
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        digest = hashlib.sha256()
        for start in range(0, len(self._map), 1 << 20):
            digest.update(self._map[start : start + (1 << 20)])
            self._release_pages()
        return digest.hexdigest()

    def _release_pages(self) -> None:
        """Give back the memory of pages that were read, which are read again when they are used."""
        if isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _read(descriptor: int) -> bytes:
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        content = file.read()
    if not content:
        raise ValueError("empty")  # as mmap does
    return content


class NewParameters(Parameters):
    """Parameters in memory; arrays of a ParamsFile stay views of the file."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self.infos = {
            name: ArrayInfo(name, "", array.shape, array.dtype.str, 0, array.nbytes)
            for name, array in self._arrays.items()
        }

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]


class LazyParameters(Parameters):
    """Float32 parameters with known shapes; `read` reads or computes an array on each access."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Array]) -> None:
        self._read = read
        self.infos = {
            name: ArrayInfo(name, "", shape, "<f4", 0, 4 * math.prod(shape)) for name, shape in shapes.items()
        }

    def __getitem__(self, name: str) -> Array:
        self.infos[name]  # raises KeyError, as a mapping must
        return self._read(name)


def shapes_of(params: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape, without reading arrays of Parameters."""
    return params.shapes if isinstance(params, Parameters) else {name: array.shape for name, array in params.items()}


def write_params(file: Writable, params: Mapping[str, Array], auxiliary: Container[str] = ()) -> None:
    """Write arrays as ``arg:NAME``, or ``aux:NAME`` for names in `auxiliary`, as MXNet's ``nd.save`` does (V2, CPU).

    Arrays are written one by one, and only the current one is copied. Raises ModelError for a dtype that MXNet does not
    have, and for an array without dimensions or elements.
    """
    file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(params)))
    for name, array in params.items():
        flag = _FLAGS.get(array.dtype.newbyteorder("<"))
        if flag is None:
            raise ModelError(f"parameter {name} is {array.dtype}, a dtype that MXNet does not have")
        if not array.ndim or not array.size:
            raise ModelError(f"parameter {name} has shape {array.shape}, which MXNet treats as unknown")
        file.write(struct.pack(f"<Iii{array.ndim}q", V2, 0, array.ndim, *array.shape))
        file.write(struct.pack("<iii", 1, 0, flag))
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    file.write(struct.pack("<Q", len(params)))
    for name in params:
        encoded = f"{'aux' if name in auxiliary else 'arg'}:{name}".encode()
        file.write(struct.pack("<Q", len(encoded)) + encoded)
