"""Read TensorFlow checkpoints without TensorFlow: an index and files of raw data, both checked by CRC-32C.

``PREFIX.index`` is a table of LevelDB: blocks of sorted keys and values, a block with the places of the blocks, and a
footer of 48 bytes. Its values are messages of protobuf: under the key "" a header, under each tensor's name its dtype,
shape, place and checksum (tensorflow/core/protobuf/tensor_bundle.proto). ``PREFIX.data-00000-of-00001`` has the
elements, little-endian, row by row.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.families import printable
from bertsym.file_reader import open_regular, refuse_lfs_pointer
from bertsym.sources.crc32c import crc32c, unmask

INDEX = ".index"  #: end of the name of the index
#: Maximal size of an index in bytes: that of BERT large with the slots of its optimizer has 50 KB.
MAX_INDEX = 1 << 23

_FOOTER, _TRAILER = 48, 5  # bytes; a block ends in its compression and its checksum
_MAGIC = 0xDB4775248B80FB57
_MAX_SHARDS = 1 << 12
_MAX_TENSORS = 1 << 15  # with the slots of an optimizer, 28 times as many as BERT large has
_MAX_NAME = 1 << 10  # bytes; keys share their beginnings, so that few bytes may stand for many long names
_MAX_DIMENSIONS = 32  # the limit of numpy
_MAX_ELEMENTS = 1 << 40
#: number of a dtype in tensorflow/core/framework/types.proto -> dtype of numpy, which has no bfloat16
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 14: "<u2", 19: "<f2"}
_BFLOAT16 = 14

_Fields = dict[int, list["int | bytes"]]  # the values of a message by the number of the field


@dataclass(frozen=True)
class _Tensor:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    is_sliced: bool  #: whether the elements are under other keys, in slices


class TensorBundle(Mapping[str, Array]):
    """The tensors of a checkpoint by name, read from the files of its `prefix` on demand.

    The index is read and checked first; the checksum of a tensor is checked when it is first read.

    Raises ModelError, naming the file, for a file that is missing, damaged, truncated, a Git LFS pointer or beyond the
    limits. Names of tensors with a dtype that is not numeric, or in slices, are there; reading one raises ModelError.
    """

    def __init__(self, prefix: Path) -> None:
        self._index = prefix.with_name(prefix.name + INDEX)
        content = _read_index(self._index)
        entries: dict[str, bytes] = {}
        for name, entry in _table(content, self._index):
            if len(entries) > _MAX_TENSORS:
                raise ModelError(f"{self._index}: more than {_MAX_TENSORS} tensors, the largest supported number")
            entries[name] = entry
        if "" not in entries:
            raise _damaged(self._index, "it has no header")
        header = _message(entries.pop(""), self._index)
        shards = _integer(header, 1)
        if not 1 <= shards <= _MAX_SHARDS:
            raise _damaged(self._index, f"it has {shards} files of data")
        if _integer(header, 2):
            raise ModelError(f"{self._index}: big-endian data is not supported; save the checkpoint on another machine")
        self._tensors = {name: _tensor(entry, self._index) for name, entry in entries.items()}
        self.shards = [prefix.with_name(f"{prefix.name}.data-{i:05}-of-{shards:05}") for i in range(shards)]
        self._checked: set[str] = set()
        sizes = [_size(path) for path in self.shards]
        for name, tensor in self._tensors.items():
            self._check(name, tensor, sizes)

    @property
    def files(self) -> tuple[Path, ...]:
        """The index and the files of data."""
        return (self._index, *self.shards)

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        if tensor.dtype not in _DTYPES or tensor.is_sliced:
            why = "in slices" if tensor.is_sliced else f"of the dtype {tensor.dtype} of TensorFlow"
            raise ModelError(f"{self._index}: {printable(name)} is {why}, which is not supported")
        path = self.shards[tensor.shard]
        data = np.fromfile(path, np.uint8, tensor.size, offset=tensor.offset)
        if len(data) != tensor.size:
            raise ModelError(f"{path}: the file became shorter while it was read")
        if name not in self._checked:
            if crc32c(data) != tensor.checksum:
                raise _damaged(path, f"the checksum of {printable(name)} differs from that in {self._index.name}")
            self._checked.add(name)
        flat = data.view(_DTYPES[tensor.dtype])
        if tensor.dtype == _BFLOAT16:  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _check(self, name: str, tensor: _Tensor, sizes: list[int]) -> None:
        """Raise ModelError unless the data of a tensor is in its file and has the size of its shape."""
        if tensor.shard >= len(sizes):
            raise _damaged(self._index, f"{printable(name)} is in file {tensor.shard} of {len(sizes)}")
        if tensor.offset + tensor.size > sizes[tensor.shard]:
            raise _damaged(
                self.shards[tensor.shard],
                f"{printable(name)} ends at byte {tensor.offset + tensor.size}, the file at {sizes[tensor.shard]}",
            )
        if tensor.dtype in _DTYPES and not tensor.is_sliced:
            needed = math.prod(tensor.shape) * np.dtype(_DTYPES[tensor.dtype]).itemsize
            if needed != tensor.size:
                raise _damaged(
                    self._index, f"{printable(name)} of shape {tensor.shape} has {tensor.size} bytes, not {needed}"
                )


def _read_index(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_INDEX:
                raise ModelError(f"{path}: {size} bytes, at most {MAX_INDEX} are supported")
            content = file.read(size)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    refuse_lfs_pointer(path, content)
    return content


def _size(path: Path) -> int:
    try:
        with open_regular(path) as file:
            refuse_lfs_pointer(path, file.read(64))
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _table(content: bytes, path: Path) -> Iterator[tuple[str, bytes]]:
    """Iterate over the keys and values of a table of LevelDB."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise _damaged(path, "it does not end like an index of TensorFlow")
    reader = _Reader(footer, path)
    _block(content, reader.varint(), reader.varint(), path)  # of meta data, without entries
    blocks = _block(content, reader.varint(), reader.varint(), path)
    previous: bytes | None = None
    for _, place in _entries(blocks, path):
        reader = _Reader(place, path)
        for key, value in _entries(_block(content, reader.varint(), reader.varint(), path), path):
            if previous is not None and key <= previous:
                raise _damaged(path, "its keys are not sorted")
            previous = key
            try:
                yield key.decode(), value
            except UnicodeDecodeError:
                raise _damaged(path, f"the name {key!r:.80} is not UTF-8 text") from None


def _block(content: bytes, offset: int, size: int, path: Path) -> bytes:
    """Return the entries of a block, without its restart points."""
    end = offset + size
    if end + _TRAILER > len(content) - _FOOTER or size < 4:
        raise _damaged(path, f"a block of {size} bytes at byte {offset}, in {len(content)}")
    compression, checksum = struct.unpack_from("<BI", content, end)
    if crc32c(content[offset : end + 1]) != unmask(checksum):
        raise _damaged(path, f"the checksum of the block at byte {offset} differs")
    if compression:
        raise ModelError(f"{path}: compressed blocks are not supported; TensorFlow writes none")
    restarts = struct.unpack_from("<I", content, end - 4)[0]
    if 4 * (restarts + 1) > size:
        raise _damaged(path, f"the block at byte {offset} has {restarts} restart points in {size} bytes")
    return content[offset : end - 4 * (restarts + 1)]


def _entries(block: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over the keys and values of a block; a key is stored without what it shares with the one before."""
    reader, key = _Reader(block, path), b""
    while not reader.is_empty:
        shared, rest, length = reader.varint(), reader.varint(), reader.varint()
        if shared > len(key):
            raise _damaged(path, f"a key shares {shared} bytes with one of {len(key)}")
        key = key[:shared] + reader.bytes(rest)
        if len(key) > _MAX_NAME:
            raise _damaged(path, f"a name of {len(key)} bytes")
        yield key, reader.bytes(length)


def _tensor(content: bytes, path: Path) -> _Tensor:
    """Read a BundleEntryProto."""
    fields = _message(content, path)
    shape = _message(_last(fields, 2, b""), path)
    sizes = [_integer(_message(size, path), 1) for size in shape.get(2, []) if isinstance(size, bytes)]
    if len(sizes) > _MAX_DIMENSIONS or math.prod(max(size, 1) for size in sizes) > _MAX_ELEMENTS:
        raise _damaged(path, f"a tensor of the shape {sizes}"[:200])
    return _Tensor(
        _integer(fields, 1),
        tuple(sizes),
        _integer(fields, 3),
        _integer(fields, 4),
        _integer(fields, 5),
        unmask(_integer(fields, 6)),
        7 in fields,
    )


def _message(content: bytes, path: Path) -> _Fields:
    """Parse a message of protobuf into the values of its fields, by number."""
    fields: _Fields = {}
    reader = _Reader(content, path)
    while not reader.is_empty:
        tag = reader.varint()
        kind = tag & 7
        if kind == 0:
            value: int | bytes = reader.varint()
        elif kind == 2:
            value = reader.bytes(reader.varint())
        elif kind in (1, 5):
            value = int.from_bytes(reader.bytes(8 if kind == 1 else 4), "little")
        else:
            raise _damaged(path, f"a field of the kind {kind} of protobuf")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _integer(fields: _Fields, number: int) -> int:
    value = fields.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def _last(fields: _Fields, number: int, default: bytes) -> bytes:
    value = fields.get(number, [default])[-1]
    return value if isinstance(value, bytes) else default


class _Reader:
    """Reads bytes from the front; raises ModelError where there are too few."""

    def __init__(self, content: bytes, path: Path) -> None:
        self._content, self._path, self._position = content, path, 0

    @property
    def is_empty(self) -> bool:
        return self._position == len(self._content)

    def bytes(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._content):
            raise _damaged(self._path, f"{count} bytes are needed where {len(self._content) - self._position} are left")
        found = self._content[self._position : end]
        self._position = end
        return found

    def varint(self) -> int:
        """Read an integer of 7 bits a byte, the lowest first."""
        value = 0
        for shift in range(0, 64, 7):
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _damaged(self._path, "an integer of more than 64 bits")


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path}: damaged or truncated TensorFlow checkpoint: {why}")
