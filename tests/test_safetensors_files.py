"""safetensors files are checked by their headers, as the library of the format checks them, and within limits."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from conftest import Result, write_hugging_face
from refusals import refusal
from safetensors.numpy import load_file

from bertsym import ModelError
from bertsym.sources import safetensors_file
from bertsym.sources.safetensors_file import MAX_HEADER, MAX_TENSORS, SafetensorsFiles

Cli = Callable[..., Result]

DATA = np.arange(6, dtype="<f4").tobytes()


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, header: object, data: bytes = DATA) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([2, 2], 0, 16), "b": entry([2], 16, 24)},
        {"b": entry([2], 16, 24), "a": entry([2, 2], 0, 16), "__metadata__": {"format": "pt"}},
        {"a": entry([], 0, 4), "empty": entry([0, 3], 4, 4), "b": entry([5], 4, 24)},
        {"half": entry([2], 0, 4, "F16"), "double": entry([1], 4, 12, "F64"), "bytes": entry([12], 12, 24, "U8")},
        json.dumps({"a": entry([6], 0, 24)}).encode() + b"    ",
    ],
    ids=["two tensors", "any order and metadata", "scalar and no elements", "other dtypes", "padded header"],
)
def test_tensors_are_those_that_the_library_reads(tmp_path: Path, header: object) -> None:
    path = write(tmp_path / "x.safetensors", header)
    found, expected = SafetensorsFiles([path]), load_file(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry([5], 0, 20)}, "end at byte"),
        ({"a": entry([7], 0, 28)}, "end at byte"),
        ({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, "begins at byte"),
        ({"a": entry([2], 0, 8), "b": entry([2], 16, 24)}, "begins at byte"),
        ({"a": entry([5], 4, 24)}, "begins at byte"),
        ({"a": entry([5], 0, 24)}, "a: 24 bytes of data, but F32 of shape (5,) needs 20"),
        ({"a": entry([6], 24, 0)}, "a: -24 bytes"),
        ({"a": entry([-6], 0, 24)}, "a.shape[0]: -6"),
        ({"a": entry([6], 0, 24, 7)}, "a.dtype: 7 is not a string"),
        ({"a": {"dtype": "F32", "shape": [6]}}, 'a: the key "data_offsets" is missing'),
        ({"a": {**entry([6], 0, 24), "data_offsets": [0, 12, 24]}}, "a.data_offsets: 3 elements"),
        ({"a": entry([6], 0, 10**400)}, "a.data_offsets[1]: 1000"),
        ({"a": [6]}, "a: an array is not an object"),
        ({"a": entry([6], 0, 24), "__metadata__": []}, "__metadata__: an array is not an object"),
        ({"a": entry([6], 0, 24), "__metadata__": {"epoch": 3}}, "__metadata__.epoch: 3 is not a string"),
        (b'{"\\ud800": 1}', "a lone surrogate"),
        ([], "an array is not a JSON object"),
        (b"{]", "not valid JSON"),
        (b"\xff\xff", "not UTF-8"),
    ],
)
def test_a_header_that_the_library_refuses_is_refused_with_the_reason(
    tmp_path: Path, header: object, message: str
) -> None:
    path = write(tmp_path / "x.safetensors", header)
    with pytest.raises(safetensors.SafetensorError):
        load_file(path)
    with pytest.raises(ModelError) as caught:
        SafetensorsFiles([path])
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_tensor_that_occurs_twice_in_a_header_is_refused(tmp_path: Path) -> None:
    """The library takes the last one."""
    text = json.dumps({"a": entry([6], 0, 24), "b": entry([6], 0, 24)}).replace('"b"', '"a"')
    path = write(tmp_path / "x.safetensors", text.encode())
    with pytest.raises(ModelError, match='the key "a" is repeated'):
        SafetensorsFiles([path])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({f"t{i}": entry([0], 0, 0) for i in range(MAX_TENSORS + 1)}, f"{MAX_TENSORS + 1} tensors"),
        (b"{}".ljust(MAX_HEADER + 1), f"a header of {MAX_HEADER + 1} bytes"),
    ],
    ids=["tensors", "bytes"],
)
def test_a_header_beyond_the_limits_is_refused(cli: Cli, tmp_path: Path, header: object, message: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    path = write(folder / "model.safetensors", header, b"")
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "base"), tmp_path / "out")
    assert f"{path}: {message}, at most" in line


def test_the_tensors_of_all_shards_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 3)
    paths = [
        write(tmp_path / f"{shard}.safetensors", {f"{shard}{i}": entry([0], 0, 0) for i in range(2)}, b"")
        for shard in "ab"
    ]
    with pytest.raises(ModelError, match=r"b\.safetensors: 4 tensors, at most 3"):
        SafetensorsFiles(paths)


def test_a_file_that_becomes_shorter_is_reported_when_a_tensor_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry([6], 0, 24)})
    weights = SafetensorsFiles([path])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match="became shorter"):
        weights["a"]
