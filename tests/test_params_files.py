""".params files: byte for byte those of MXNet, and no damaged one is read as if it were whole."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from params_bytes import DTYPES, V1, V2, V3, array_bytes, csr_bytes, file_bytes, name_bytes, opened, sparse_bytes

from bertsym import ModelError, ParamsFile
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.symbol.params import write_params


def refused(folder: Path, content: bytes) -> str:
    """Why a file is refused: one line with its name."""
    with pytest.raises(ModelError) as caught:
        opened(folder, content)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'x.params'}: ")
    assert "\n" not in message
    return message


def assert_same(array: Array, expected: Array) -> None:
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(array, expected)


def reason(value: object) -> str:
    """The id of a parameter: the reason, not the bytes."""
    return value if isinstance(value, str) else "file"


def some_arrays() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {"w": (2, 3), "b": (3,), "deep": (1, 2, 1, 3, 2), "é中": (1,), "fc-finetune_weight": (4, 5)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def stored_states(params: ParamsFile) -> list[str]:
    """What a file stores as auxiliary states."""
    return [info.name for info in params.infos.values() if info.kind == "aux"]


# Writing


def test_written_files_are_those_of_mxnet_byte_for_byte(tmp_path: Path) -> None:
    arrays = some_arrays()
    mx.nd.save(str(tmp_path / "mxnet.params"), {f"arg:{name}": mx.nd.array(value) for name, value in arrays.items()})
    ours = io.BytesIO()
    write_params(ours, arrays)
    assert ours.getvalue() == (tmp_path / "mxnet.params").read_bytes()


def test_mxnet_reads_what_was_written(tmp_path: Path) -> None:
    arrays = some_arrays()
    with open(tmp_path / "ours.params", "wb") as file:
        write_params(file, arrays)
    loaded = mx.nd.load(str(tmp_path / "ours.params"))
    assert list(loaded) == [f"arg:{name}" for name in arrays]
    for name, value in arrays.items():
        np.testing.assert_array_equal(loaded[f"arg:{name}"].asnumpy(), value)


def test_written_params_are_read_back(tmp_path: Path) -> None:
    arrays = some_arrays()
    content = io.BytesIO()
    write_params(content, arrays)
    params = opened(tmp_path, content.getvalue())
    assert list(params) == list(arrays)
    for name, value in arrays.items():
        assert_same(params[name], value)


def test_an_array_that_is_not_contiguous_is_written_in_its_own_order(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    content = io.BytesIO()
    write_params(content, {"w": array})
    np.testing.assert_array_equal(opened(tmp_path, content.getvalue())["w"], [[0, 4, 8], [2, 6, 10]])


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
def test_every_dtype_is_written_as_mxnet_writes_it(tmp_path: Path, dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    content = io.BytesIO()
    write_params(content, {"w": values, "mean": values}, auxiliary=["mean"])
    saved = {
        f"{kind}:{name}": mx.nd.array(values, dtype=values.dtype.name) for kind, name in (("arg", "w"), ("aux", "mean"))
    }
    mx.nd.save(str(tmp_path / "mxnet.params"), saved)
    assert content.getvalue() == (tmp_path / "mxnet.params").read_bytes()


def test_every_dtype_survives_a_round_trip_through_a_file(tmp_path: Path) -> None:
    arrays = {dtype: np.array([[0, 1, 2], [100, 4, 5]]).astype(dtype) for dtype in DTYPES}
    first = io.BytesIO()
    write_params(first, arrays, auxiliary=["int8", "bool"])
    params = opened(tmp_path, first.getvalue())
    assert stored_states(params) == ["int8", "bool"]
    for dtype, array in arrays.items():
        assert_same(params[dtype], array)
    second = io.BytesIO()
    write_params(second, params, stored_states(params))
    assert second.getvalue() == first.getvalue()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
def test_an_array_without_dimensions_or_elements_is_not_written(shape: tuple[int, ...]) -> None:
    """MXNet takes both for arrays whose shape it does not know, and no reader would find the next one."""
    with pytest.raises(ModelError, match=r"^parameter w has shape \(.*\), which MXNet treats as unknown$"):
        write_params(io.BytesIO(), {"w": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "U3"])
def test_a_dtype_that_mxnet_does_not_have_is_refused(dtype: str) -> None:
    with pytest.raises(ModelError, match=r"^parameter w is .*, a dtype that MXNet does not have$"):
        write_params(io.BytesIO(), {"w": np.zeros((2, 2), dtype)})


# Reading what MXNet writes


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_that_mxnet_saves_is_read(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 1, 2], [100, 4, 5]]).astype(dtype)
    mx.nd.save(str(tmp_path / "x.params"), {"arg:w": mx.nd.array(values, dtype=dtype)})
    params = ParamsFile(tmp_path / "x.params")
    np.testing.assert_array_equal(params["w"], values)
    assert params["w"].dtype == np.dtype(dtype)
    assert params.infos["w"].nbytes == values.nbytes


def test_names_come_without_their_kind_and_with_their_shapes(tmp_path: Path) -> None:
    arrays = {"arg:a": mx.nd.ones((2, 3)), "aux:moving_mean": mx.nd.ones((4,)), "plain.name": mx.nd.ones((1, 1))}
    mx.nd.save(str(tmp_path / "x.params"), arrays)
    params = ParamsFile(tmp_path / "x.params")
    assert {name: (info.shape, info.kind) for name, info in params.infos.items()} == {
        "a": ((2, 3), "arg"),
        "moving_mean": ((4,), "aux"),
        "plain.name": ((1, 1), ""),
    }
    assert (len(params), "a" in params, "arg:a" in params) == (3, True, False)


def test_auxiliary_states_survive_and_mxnet_finds_them_again(tmp_path: Path) -> None:
    arrays = {"arg:gamma": mx.nd.ones((4,)), "aux:mean": mx.nd.zeros((4,)), "aux:var": mx.nd.ones((4,)) * 2}
    mx.nd.save(str(tmp_path / "m-0000.params"), arrays)
    params = ParamsFile(tmp_path / "m-0000.params")
    assert stored_states(params) == ["mean", "var"]
    with open(tmp_path / "m-0001.params", "wb") as file:
        write_params(file, params, stored_states(params))
    assert (tmp_path / "m-0001.params").read_bytes() == (tmp_path / "m-0000.params").read_bytes()
    arguments, states = mx.model.load_params(str(tmp_path / "m"), 1)
    assert ([*arguments], [*states]) == (["gamma"], ["mean", "var"])


def test_a_file_without_arrays_is_an_empty_mapping(tmp_path: Path) -> None:
    mx.nd.save(str(tmp_path / "x.params"), {})
    assert dict(ParamsFile(tmp_path / "x.params")) == {}


@pytest.mark.parametrize("version", ["0.9.5", "0.11.0"])
def test_files_of_old_versions_are_read_as_mxnet_reads_them(version: str) -> None:
    path = Path(__file__).parent / "old_checkpoints" / f"mxnet-{version}" / "net-0000.params"
    expected, params = mx.nd.load(str(path)), ParamsFile(path)
    assert [f"{info.kind}:{name}" for name, info in params.infos.items()] == list(expected)
    assert {info.kind for info in params.infos.values()} == {"arg", "aux"}
    for name, info in params.infos.items():
        assert_same(params[name], expected[f"{info.kind}:{name}"].asnumpy())


@pytest.mark.parametrize("magic", [None, V1, V2, V3], ids=["V0", "V1", "V2", "V3"])
def test_every_layout_and_dtype_is_read_as_mxnet_reads_it(tmp_path: Path, magic: int | None) -> None:
    values = [np.array([[[0, 1, 2], [100, 4, 5]]]).astype(dtype) for dtype in DTYPES]
    arrays = [array_bytes((1, 2, 3), array.tobytes(), magic, dtype=flag) for flag, array in enumerate(values)]
    params = opened(tmp_path, file_bytes(*arrays))
    with mx.util.np_shape(magic == V3):
        loaded = mx.nd.load(str(tmp_path / "x.params"))
    for i, array in enumerate(values):
        assert_same(params[f"w{i}"], array)
        assert_same(loaded[f"arg:w{i}"].asnumpy(), array)


@pytest.mark.parametrize("magic", [None, V1], ids=["V0", "V1"])
def test_layouts_may_differ_within_a_file(tmp_path: Path, magic: int | None) -> None:
    params = opened(tmp_path, file_bytes(array_bytes(magic=magic), array_bytes((2,), b"\1\2", dtype=5)))
    assert_same(params["w0"], np.frombuffer(bytes(range(24)), np.float32).reshape(2, 3))
    assert_same(params["w1"], np.array([1, 2], np.int8))


DENSE = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0], [0, 5, 0]], np.float32)


def sparse(dense: Array, storage: str) -> Any:
    """Waited for: MXNet 1.9.1 saves an array that is still being computed with a wrong number of rows."""
    array = mx.nd.array(dense, dtype=dense.dtype).tostype(storage)
    array.wait_to_read()
    return array


@pytest.mark.parametrize("storage", ["row_sparse", "csr"])
@pytest.mark.parametrize(
    "dense", [DENSE, np.zeros_like(DENSE), DENSE[1:, 1:].astype(np.float64)], ids=["some", "none", "float64"]
)
def test_a_sparse_array_is_read_as_the_dense_one_that_mxnet_makes_of_it(
    tmp_path: Path, storage: str, dense: Array
) -> None:
    path = tmp_path / "x.params"
    mx.nd.save(str(path), {"arg:w": sparse(dense, storage), "arg:b": mx.nd.ones((2,))})
    params = ParamsFile(path)
    assert_same(params["w"], dense)
    assert_same(params["w"], mx.nd.load(str(path))["arg:w"].tostype("default").asnumpy())
    assert not params["w"].flags.writeable
    assert (params.infos["w"].nbytes, params.shapes) == (dense.nbytes, {"w": dense.shape, "b": (2,)})


def test_sparse_rows_of_any_rank_are_made_dense(tmp_path: Path) -> None:
    for shape in ((5,), (4, 2, 3)):
        dense = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        dense[1::2] = 0
        mx.nd.save(str(tmp_path / "x.params"), {"w": sparse(dense, "row_sparse")})
        assert_same(ParamsFile(tmp_path / "x.params")["w"], dense)


def test_the_files_made_by_these_tests_are_byte_identical_to_mxnets(tmp_path: Path) -> None:
    """Else what is refused below might be refused for another reason."""
    content = file_bytes(array_bytes(), array_bytes((3,), bytes(range(12))))
    params = opened(tmp_path, content)
    mx.nd.save(str(tmp_path / "mxnet.params"), {f"arg:{name}": mx.nd.array(value) for name, value in params.items()})
    assert (tmp_path / "mxnet.params").read_bytes() == content


# Damaged files


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = file_bytes(array_bytes(), array_bytes((2,), bytes(8)))
    assert len(opened(tmp_path, content)) == 2
    for length in range(len(content)):
        refused(tmp_path, content[:length])


def test_a_header_with_one_wrong_byte_is_refused_or_fits_the_file_exactly(tmp_path: Path) -> None:
    """A changed name, or 2 x 3 turned into 3 x 2, can't be seen; a read beyond an array's place can't happen."""
    first, second = array_bytes(), array_bytes((2, 1, 2), bytes(16))
    content = file_bytes(first, second)
    data = {*range(24 + len(first) - 24, 24 + len(first)), *range(len(content) - 42 - 16, len(content) - 42)}
    assert content[min(data) : min(data) + 24] == bytes(range(24))
    rng = random.Random(0)
    accepted = 0
    for position in sorted(set(range(len(content))) - data):
        original = content[position]
        others = [value for value in range(256) if value != original]
        for value in {original ^ 1, original ^ 0x80, 0, 0xFF, *rng.sample(others, 4)} - {original}:
            damaged = content[:position] + bytes([value]) + content[position + 1 :]
            try:
                params = opened(tmp_path, damaged)
                arrays = dict(params)
            except ModelError:
                continue
            accepted += 1
            spans = sorted((info.offset, info.offset + info.nbytes) for info in params.infos.values())
            assert 24 < spans[0][0] < spans[0][1] < spans[1][0] < spans[1][1] < len(content)
            for name, array in arrays.items():
                info = params.infos[name]
                assert (array.shape, array.nbytes) == (info.shape, info.nbytes)
                assert array.tobytes() == damaged[info.offset : info.offset + info.nbytes]
    assert accepted > 20


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (file_bytes(array_bytes(), magic=0x113), "wrong magic number"),
        (b"PK\3\4" + bytes(60), "wrong magic number"),
        (file_bytes(array_bytes(), reserved=1), "damaged header"),
        # Before any of them is looked for.
        (file_bytes(array_bytes(), count=2**14 + 1), "16385 arrays, above the limit of 16384"),
        (file_bytes(array_bytes(), count=2**64 - 1), "above the limit of 16384, at byte 24"),
        (file_bytes(array_bytes(), count=2**14), "array 2 of 16384"),
        (file_bytes(array_bytes(), count=2), "array 2 of 2"),
        (file_bytes(array_bytes(), count=0, name_count=1), "0 arrays but"),
        (file_bytes(array_bytes(), name_count=0), "1 arrays but 0 names"),
        (file_bytes(array_bytes(), name_count=2**63), "1 arrays but"),
        (file_bytes(array_bytes(), tail=b"\0"), "trailing bytes"),
        (file_bytes(array_bytes(), names=(name_bytes("arg:w", 10**10),)), "a name is too long"),
        (file_bytes(array_bytes(), names=(name_bytes("arg:w", 2**64 - 1),)), "a name is too long"),
        (file_bytes(array_bytes(), names=(name_bytes("arg:w", 6),)), "truncated in the names"),
        (file_bytes(array_bytes(), names=(name_bytes("arg:w", 4),)), "trailing bytes"),
        (file_bytes(array_bytes(), names=(name_bytes(b"arg:\xff"),)), "a name is not UTF-8"),
        (file_bytes(array_bytes(), array_bytes(), names=(name_bytes("arg:w"),) * 2), "name 'w' occurs twice"),
        (
            file_bytes(array_bytes(), array_bytes(), names=(name_bytes("arg:w"), name_bytes("aux:w"))),
            "name 'w' occurs twice",
        ),
    ],
    ids=reason,
)
def test_a_damaged_frame_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (array_bytes(magic=0xF993FAC7), "array 1 of 1 has an unknown format"),
        # Of an array without a magic number the rank is all that marks it.
        (array_bytes(magic=2), "not a readable"),
        (array_bytes(magic=33), "array 1 of 1 has an unknown format"),
        (array_bytes((2**31, 3), b"", magic=None), "truncated in array 1 of 1"),
        (array_bytes((2, 0), b"", magic=None), "has shape (2, 0)"),
        (
            array_bytes((), b"", magic=V3),
            "saved under np_shape, has 0 dimensions at byte 36; a parameter of a symbol has",
        ),
        (array_bytes((0, 3), b"", magic=V3), "reshape a scalar to (1,), then save it again"),
        (array_bytes(magic=V3, storage=1), "has an unknown storage type 1"),
        (array_bytes(storage=-1), "has an unknown storage type -1"),
        (array_bytes(storage=3), "has an unknown storage type 3"),
        (sparse_bytes((4, 3), [1, 4]), "which is row_sparse, has indices that are out of order or out of range"),
        (sparse_bytes((4, 3), [-1, 2]), "out of order or out of range"),
        (sparse_bytes((4, 3), [2, 2]), "out of order or out of range"),
        (sparse_bytes((4, 3), [1, 2, 3], stored=(2, 3)), "has parts that do not fit its shape (4, 3)"),
        (sparse_bytes((2**20, 2**12), [1]), "would take the dense arrays above 2048 MiB"),
        (sparse_bytes((4, 3), [1], index_dtype=0), "has indices of the dtype float32"),
        (csr_bytes((2, 3), [0, 1, 3], [0, 2, 2]), "which is csr, has indices that are out of order or out of range"),
        (csr_bytes((2, 3), [0, 1, 3], [0, 1, 3]), "out of order or out of range"),
        (csr_bytes((2, 3), [0, 2, 1], [0, 1]), "out of order or out of range"),
        (csr_bytes((2, 3), [1, 1, 2], [0, 1]), "out of order or out of range"),
        (csr_bytes((2, 3), [0, 1], [0]), "has parts that do not fit its shape (2, 3)"),
        (csr_bytes((2, 3, 1), [0, 0, 0], []), "has parts that do not fit its shape (2, 3, 1)"),
        (array_bytes(ndim=-1), "array 1 of 1 has -1 dimensions"),
        (array_bytes(ndim=0), "array 1 of 1 has 0 dimensions"),
        (array_bytes(ndim=33), "array 1 of 1 has 33 dimensions"),
        (array_bytes(ndim=2**31 - 1), "dimensions"),
        (array_bytes((-2, -3)), "has shape (-2, -3)"),
        (array_bytes((2, 400)), "truncated in array 1 of 1"),
        (array_bytes((2**40, 2**40)), "truncated in array 1 of 1"),
        (array_bytes((2**62, 4)), "truncated in array 1 of 1"),
        (array_bytes((2**63 - 1,)), "truncated in array 1 of 1"),
        (array_bytes(dtype=1), "not a readable"),
        (array_bytes(dtype=12), "array 1 of 1 has an unknown dtype 12"),
        (array_bytes(dtype=-1), "array 1 of 1 has an unknown dtype -1"),
        (array_bytes((2, 4)), "not a readable"),
    ],
    ids=reason,
)
def test_a_damaged_array_is_refused(tmp_path: Path, array: bytes, why: str) -> None:
    assert why in refused(tmp_path, file_bytes(array))


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (2**62, 0), (2**62, 2**62, 0)], ids=str)
def test_an_array_without_elements_is_refused_or_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Its bytes fit any file, but numpy can't make every such shape."""
    try:
        params = opened(tmp_path, file_bytes(array_bytes(shape, b"")))
    except ModelError:
        return
    assert params["w0"].shape == shape


def test_arrays_without_names_are_refused(tmp_path: Path) -> None:
    mx.nd.save(str(tmp_path / "x.params"), [mx.nd.ones((2, 3))])
    with pytest.raises(ModelError, match="1 arrays but 0 names"):
        ParamsFile(tmp_path / "x.params")


def test_a_git_lfs_pointer_is_reported_as_such(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 1234\n"
    assert "a Git LFS pointer instead of the file; run `git lfs pull`" in refused(tmp_path, pointer)


def test_a_file_that_can_t_be_opened_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.params: No such file or directory$"):
        ParamsFile(tmp_path / "absent.params")
    with pytest.raises(ModelError, match=r"Is a directory$"):
        ParamsFile(tmp_path)
    assert refused(tmp_path, b"").endswith(": empty file")
