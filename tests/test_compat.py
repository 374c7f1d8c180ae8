"""mxnet 1.9.1 and gluonnlp 0.10.0 on newer Pythons and numpys: repairs at import, errors where they are missing."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from bertsym.compat import bert_tokenizer
from bertsym.compat.installing import install_command, library_errors, missing_library, missing_mxnet
from bertsym.compat.numpy_names import restore_numpy_names
from bertsym.errors import InstallationError
from bertsym.mxnet_runtime import import_library


def run_python(code: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=directory, capture_output=True, text=True)


def raises(message: str) -> AbstractContextManager[object]:
    return pytest.raises(InstallationError, match=message)


# numpy


def test_import_bertsym_repairs_numpy_before_a_plain_import_of_mxnet_and_imports_neither(tmp_path: Path) -> None:
    code = """
import sys
import bertsym
assert not {"numpy", "mxnet"} & {*sys.modules}
import mxnet
import gluonnlp
assert mxnet.nd.ones((2, 3)).sum().asscalar() == 6
assert gluonnlp.data.BERTBasicTokenizer()("A cat.") == ["a", "cat", "."]
"""
    finished = run_python(code, tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_names_that_numpy_removed_have_their_old_meaning(tmp_path: Path) -> None:
    """In a process of its own, which takes them away first where this numpy still has them."""
    code = """
import numpy as np
from bertsym.compat.numpy_names import restore_numpy_names
removed = {"alltrue", "sometrue", "product", "round_", "in1d", "msort", "pv", "PZERO", "NZERO", "NINF", "NaN"}
removed |= {"trapz"} if hasattr(np, "trapezoid") else set()
for name in {"__getattr__", *removed}:
    vars(np).pop(name, None)
assert removed <= {*restore_numpy_names()}
assert restore_numpy_names() == []
assert not np.alltrue([True, False]) and np.sometrue([True, False])
assert np.product([2, 3]) == 6 and np.round_(1.26, 1) == 1.3
assert np.in1d([1, 2], [2]).tolist() == [False, True]
assert np.trapz([0, 2]) == 1
assert np.msort([[2, 1], [1, 3]]).tolist() == [[1, 1], [2, 3]]
assert np.signbit(np.NZERO) and not np.signbit(np.PZERO) and np.isnan(np.NaN) and np.NINF < 0
try:
    np.pv(1, 2, 3)
except RuntimeError as error:
    assert "numpy-financial" in str(error)
else:
    raise AssertionError
"""
    finished = run_python(code, tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_names_that_numpy_has_are_left_alone() -> None:
    restore_numpy_names()
    kept = dict(vars(np))
    assert restore_numpy_names() == []
    assert all(vars(np)[name] is value for name, value in kept.items())


# The tokenizer's extension: scripts/maintenance/compare_bert_tokenizer.py compares with it


@pytest.mark.parametrize(
    ("text", "lower", "words"),
    [
        ("Héllo, World!", True, ["hello", ",", "world", "!"]),
        ("Héllo, World!", False, ["Hello", ",", "World", "!"]),
        ("a中b\t\u00a0c\u200bd\0e\ufffdf", True, ["a", "中", "b", "cdef"]),
        ("$5^2~", True, ["$", "5", "^", "2", "~"]),
        (" \n ", True, []),
    ],
)
def test_basic_tokenizer_splits_texts_into_words(text: str, lower: bool, words: list[str]) -> None:
    assert bert_tokenizer.BasicTokenizer(lower).tokenize(text) == words


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable able", ["un", "##aff", "##able", "[UNK]"]),
        ("unx", ["[UNK]"]),
        ("ununununun", ["[UNK]"]),
        ("", []),
    ],
)
def test_wordpiece_tokenizer_splits_words_into_pieces(text: str, pieces: list[str]) -> None:
    vocabulary = {"un", "##un", "##aff", "##able"}
    assert bert_tokenizer.WordpieceTokenizer(vocabulary, max_input_chars_per_word=9).tokenize(text) == pieces


# Operators


def test_operators_of_the_command_line_are_made_when_they_are_called_and_are_those_of_mxnet(tmp_path: Path) -> None:
    """Called by several threads at once."""
    code = """
import inspect, sys, threading
import bertsym
from bertsym.compat.operator_functions import make_operators_when_called
from bertsym.compat.optional_packages import import_mxnet_without_optional_packages
import_mxnet_without_optional_packages()  # makes the import quicker
if "deferred" in sys.argv:
    make_operators_when_called()
import mxnet as mx
operators = (mx.nd.FullyConnected, mx.sym.FullyConnected, mx.nd.concat, mx.sym.concat, mx.nd.random.normal)
if "deferred" in sys.argv:
    assert {function.__code__.co_name for function in operators[:-1]} == {"_first_call"}
threads, printed = [], []
def call():
    ones = mx.nd.ones((2, 3))
    joined = mx.nd.concat(ones, mx.nd.FullyConnected(ones, mx.nd.ones((4, 3)), no_bias=True, num_hidden=4), dim=1)
    x = mx.sym.var("x")
    symbol = mx.sym.concat(x, mx.sym.FullyConnected(x, num_hidden=4, name="dense"), dim=1, name="joined")
    printed.append((joined.asnumpy().tolist(), symbol.tojson()))
for _ in range(8):
    threads.append(threading.Thread(target=call))
    threads[-1].start()
for thread in threads:
    thread.join()
assert len(printed) == 8 and all(one == printed[0] for one in printed)
try:
    mx.nd.concat(1)
except AssertionError as error:
    printed.append(error)
described = (f"{f.__module__}.{f.__qualname__}{inspect.signature(f)} {f.__doc__}" for f in operators)
print(printed[0], *described, printed[-1])
"""
    deferred, compiled = (run_python(code, tmp_path, *words) for words in (["deferred"], []))
    assert (deferred.returncode, deferred.stderr) == (0, "")
    assert deferred.stdout == compiled.stdout
    assert "must have NDArray type" in compiled.stdout


# Optional packages


def test_commands_import_mxnet_without_its_optional_packages_which_stay_importable(tmp_path: Path) -> None:
    code = """
import sys
import bertsym
from bertsym.compat.operator_functions import make_operators_when_called
from bertsym.compat.optional_packages import import_mxnet_without_optional_packages
make_operators_when_called()  # makes the import quicker
if "without" in sys.argv:
    import_mxnet_without_optional_packages()
import mxnet
imported = {"onnx", "scipy", "sklearn"} & {*sys.modules}
assert imported == (set() if "without" in sys.argv else {"onnx", "scipy", "sklearn"}), imported
assert ({"numpy.testing", "requests.api"} <= {*sys.modules}) == ("without" not in sys.argv)
mxnet.test_utils.assert_almost_equal(mxnet.nd.ones(2), mxnet.nd.ones(2).asnumpy())
assert mxnet.gluon.utils.requests.get is __import__("requests").get
import onnx, scipy, sklearn
assert mxnet.nd.ones((2, 3)).sum().asscalar() == 6
"""
    for words in (["without"], []):
        finished = run_python(code, tmp_path, *words)
        assert (finished.returncode, finished.stderr) == (0, "")


# Messages


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    command = "CC=true LDSHARED=true /env/bin/python -m pip install --no-deps mxnet==1.9.1 gluonnlp==0.10.0"
    assert install_command("mxnet", "gluonnlp").replace(sys.executable, "/env/bin/python") == command
    assert install_command("onnxruntime") == f"{sys.executable} -m pip install onnxruntime"
    with raises(r"^gluonnlp is not installed; run: .* --no-deps gluonnlp==0.10.0$"), library_errors():
        raise ModuleNotFoundError(name="gluonnlp")
    with raises(r"^mxnet needs setuptools, .*; run: .* install setuptools$"), library_errors():
        raise ModuleNotFoundError(name="distutils")


def test_an_import_of_mxnet_where_it_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mxnet", None)
    with raises(f"^{re.escape(missing_mxnet())}$"):
        import_library("mxnet")


def test_a_missing_wheel_for_the_platform_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert missing_mxnet().startswith("mxnet is not installed, and has no wheel for Darwin on arm64")


def test_a_library_that_the_system_lacks_is_named_with_its_debian_package() -> None:
    with raises(r"^mxnet can't load libnone\.so\.9, which this system does not have$"), library_errors():
        ctypes.CDLL("libnone.so.9")
    expected = "; on Debian or Ubuntu: apt-get install libgomp1 libquadmath0"
    assert missing_library("libquadmath.so.0").endswith(expected)
