"""What symbol JSON computes, by mxnet alone: nothing of bertsym reads the graph on the way."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bertsym.array import Array
from bertsym.mxnet_runtime import mx, quiet_stderr

Shapes = Mapping[str, tuple[int, ...]]

SYMBOLS = Path(__file__).parent / "symbols"
FILES = sorted(path for path in SYMBOLS.glob("*/*.json") if path.name != "expected.json")
BERTS = [path for path in FILES if path.parent.name.startswith("gluonnlp")]
OTHERS = [path for path in FILES if path not in BERTS]

# Shapes of the inputs of tests/symbols/mxnet-*.
SHAPES: Mapping[str, Shapes] = {
    "lstm": {"data": (2, 4), "softmax_label": (2, 4)},
    "lstm_fused": {"data": (5, 2, 8)},
    "lstm_gluon": {"data": (5, 2, 8), "hidden": (4, 2, 6), "cell": (4, 2, 6)},
    "multi": {"data": (4, 12), "scale": (4, 8)},
    "numpy_shape": {"data": (2, 5)},
    "resnet50": {"data": (1, 3, 64, 64)},
    "ssd": {"data": (2, 3, 64, 64), "label": (2, 4, 5)},
}


def label(path: Path) -> str:
    """The id of a file in the name of a test."""
    return f"{path.parent.name}/{path.stem}"


def load(text: str) -> object:
    """The symbol that mxnet makes of JSON."""
    with quiet_stderr():
        return mx.sym.load_json(text)


def random_array(name: str, shape: tuple[int, ...]) -> Array:
    """Numbers that follow from the name alone: of both signs for a weight, good for a variance or a token id else."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("weight"):
        array: Array = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    else:
        array = rng.uniform(0.1, 0.9, shape)
    return array.astype(np.float32)


def random_values(text: str, shapes: Shapes) -> dict[str, Array]:
    """A value for every variable of a symbol whose inputs have these shapes."""
    symbol = mx.sym.load_json(text)
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    arguments, _, states = symbol.infer_shape(**{name: shape for name, shape in shapes.items() if name in names})
    return {name: random_array(name, shape) for name, shape in zip(names, [*arguments, *states])}


def values_for(path: Path) -> dict[str, Array]:
    """A value for every variable of a file in tests/symbols: a BERT's own, random ones otherwise."""
    if path not in BERTS:
        with quiet_stderr():
            return random_values(path.read_text(), SHAPES[path.stem])
    weights = mx.nd.load(str(path.parent / "weights-0000.params"))
    values: dict[str, Array] = {name.partition(":")[2]: array.asnumpy() for name, array in weights.items()}
    for name, rows in expected(path)["inputs"].items():
        values[name] = np.asarray(rows, np.float32)
    return values


def expected(path: Path) -> dict[str, dict[str, list[object]]]:
    """Inputs and outputs of a BERT in tests/symbols, as the version that wrote it computed them."""
    found: dict[str, dict[str, list[object]]] = json.loads((path.parent / "expected.json").read_text())[
        path.stem.removesuffix("-symbol")
    ]
    return found


def compute(text: str, values: Mapping[str, Array]) -> list[Array]:
    """All outputs of a symbol, at inference."""
    with quiet_stderr():
        symbol = mx.sym.load_json(text)
    arrays = {name: mx.nd.array(value, dtype=value.dtype) for name, value in values.items()}
    executor = symbol.bind(
        mx.cpu(),
        {name: arrays[name] for name in symbol.list_arguments()},
        grad_req="null",
        aux_states={name: arrays[name] for name in symbol.list_auxiliary_states()},
    )
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def assert_equal(outputs: list[Array], others: list[Array]) -> None:
    """The same numbers to the last bit, and such that another graph would have given others."""
    assert len(outputs) == len(others) > 0
    for output, other in zip(outputs, others):
        assert np.isfinite(output).all()
        np.testing.assert_array_equal(output, other)
