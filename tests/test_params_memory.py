"""A .params file is mapped, not copied: opening reads the header, writing holds one array at most."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from params_bytes import array_bytes, file_bytes, name_bytes, opened

from bertsym import ParamsFile
from bertsym.array import Array
from bertsym.symbol.params import write_params


def test_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    params = opened(tmp_path, file_bytes(array_bytes()))
    array = params["w0"]
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert np.shares_memory(array, params["w0"])
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_arrays_outlive_the_object_that_opened_the_file(tmp_path: Path) -> None:
    array = opened(tmp_path, file_bytes(array_bytes()))["w0"]
    assert array.tobytes() == bytes(range(24))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@contextmanager
def no_more_memory_than(limit: int) -> Iterator[None]:
    before = resident_bytes()
    yield
    assert resident_bytes() - before < limit


def test_opening_a_large_file_reads_its_header_alone(tmp_path: Path) -> None:
    """Two gigabytes that are a hole on the disk: read, they would show in the memory of this process."""
    rows = 1 << 19
    path = tmp_path / "large.params"
    header = struct.pack("<QQQ", 0x112, 0, 1) + array_bytes((rows, 1024), b"")
    with open(path, "wb") as file:
        file.write(header)
        file.seek(len(header) + rows * 1024 * 4)
        file.write(struct.pack("<Q", 1) + name_bytes("arg:w"))
    with no_more_memory_than(64 << 20):
        params = ParamsFile(path)
        array = params["w"]
        assert (array.shape, array.nbytes) == ((rows, 1024), 2 << 30)
        assert array[-1, -1] == 0
    with pytest.raises(AssertionError), no_more_memory_than(64 << 20):
        assert not array[: 48 << 10].any()


BASE_SIZES: dict[str, tuple[int, ...]] = {"embedding": (30522, 768), "positions": (512, 768)}
BASE_SIZES |= {f"layer{i}_{j}": (768, 768) for i in range(12) for j in range(12)}


def hollow(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of these float32 arrays, all zeros, that takes no room on the disk."""
    with open(path, "wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(shapes)))
        for shape in shapes.values():
            file.write(array_bytes(shape, b""))
            file.seek(4 * int(np.prod(shape)), io.SEEK_CUR)
        file.write(struct.pack("<Q", len(shapes)) + b"".join(name_bytes(f"arg:{name}") for name in shapes))
    return path


def test_names_shapes_dtypes_and_sizes_of_a_large_file_cost_no_memory(tmp_path: Path) -> None:
    """As large as BERT-Base."""
    path = hollow(tmp_path / "base.params", BASE_SIZES)
    assert path.stat().st_size > 430_000_000
    with no_more_memory_than(20 << 20):
        params = ParamsFile(path)
        assert params.shapes == BASE_SIZES
        assert {(info.dtype, info.kind) for info in params.infos.values()} == {("<f4", "arg")}
        assert sum(info.nbytes for info in params.infos.values()) + (20 << 10) > path.stat().st_size
        arrays = dict(params)
        assert arrays["embedding"].nbytes == 30522 * 768 * 4


@contextmanager
def no_more_objects_than(limit: int) -> Iterator[None]:
    """Of memory that is allocated; the pages of a mapped file are the kernel's."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


LARGE = 64 << 20


def large_arrays(folder: Path) -> ParamsFile:
    return ParamsFile(hollow(folder / "large.params", {f"w{i}": (LARGE // 4096, 1024) for i in range(3)}))


def test_a_file_is_written_from_another_one_without_a_copy(tmp_path: Path) -> None:
    params = large_arrays(tmp_path)
    with open(tmp_path / "written.params", "wb") as file, no_more_objects_than(LARGE // 8):
        write_params(file, params)
    assert (tmp_path / "written.params").stat().st_size == params.path.stat().st_size
    assert ParamsFile(tmp_path / "written.params").infos == params.infos


class Transposed(Mapping[str, Array]):
    """Arrays that can't be written as they lie in the memory."""

    def __init__(self, params: ParamsFile) -> None:
        self.params = params

    def __getitem__(self, name: str) -> Array:
        return self.params[name].T

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


def test_arrays_in_another_memory_order_are_copied_one_at_a_time(tmp_path: Path) -> None:
    arrays = Transposed(large_arrays(tmp_path))
    with open(tmp_path / "written.params", "wb") as file, no_more_objects_than(LARGE + LARGE // 8):
        write_params(file, arrays)
    shapes = ParamsFile(tmp_path / "written.params").shapes
    assert shapes == {name: shape[::-1] for name, shape in arrays.params.shapes.items()}
    with pytest.raises(AssertionError), no_more_objects_than(LARGE + LARGE // 8):
        assert [array.copy() for array in arrays.values()]
