"""Each operator that converts to ONNX, in its variants, gives in onnxruntime what mxnet gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from onnx_files import assert_as_mxnet
from refusals import refusal
from tools import needs

from bertsym import ModelSource, export_onnx
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph

pytestmark = needs("onnx", "onnxruntime")

Cli = Callable[..., Result]
Make = Callable[[Any, Any], Any]
FOUR = (2, 3, 4, 5)


def of_x(op: str, /, **attributes: Any) -> Make:
    """An operator that reads x."""
    return lambda x, y: getattr(mx.sym, op)(x, **attributes)


def of_both(op: str, /, **attributes: Any) -> Make:
    """An operator that reads x and y, of one shape."""
    return lambda x, y: getattr(mx.sym, op)(x, y, **attributes)


def broadcast(name: str) -> Make:
    """An operator that reads x and the sums of y along an axis."""
    return lambda x, y: getattr(mx.sym, name)(x, mx.sym.sum(y, axis=2, keepdims=True))


def masked(lengths: int, **attributes: Any) -> Make:
    """The lengths are 1, 2, and so on."""
    return lambda x, y: mx.sym.SequenceMask(x, mx.sym.arange(1, lengths + 1), use_sequence_length=True, **attributes)


def weight() -> Any:
    return mx.sym.var("w_weight", shape=(5, 5))


def read_twice(x: Any, y: Any) -> Any:
    """A weight that is stored as it is and transposed."""
    matrix = weight()
    dense = mx.sym.FullyConnected(x, matrix, num_hidden=5, no_bias=True, flatten=False)
    return mx.sym.broadcast_add(dense, mx.sym.sum(matrix))


def with_lengths(x: Any, y: Any) -> Any:
    """A softmax of rows of which 1, 2, and so on count."""
    lengths = mx.sym.Cast(mx.sym.arange(1, 4), dtype="int32")
    return mx.sym.softmax(x, mx.sym.broadcast_to(mx.sym.reshape(lengths, shape=(1, 3)), shape=(4, 3)), use_length=True)


def attend(x: Any, y: Any) -> Any:
    """Interleaved attention of two heads of 4 units."""
    scores = mx.sym.contrib.interleaved_matmul_selfatt_qk(x, heads=2)
    return mx.sym.contrib.interleaved_matmul_selfatt_valatt(x, mx.sym.softmax(scores), heads=2)


# Shape of x -> what is made of it.
CASES: dict[tuple[int, ...], dict[str, Make]] = {
    FOUR: {
        **{f"Activation {kind}": of_x("Activation", act_type=kind) for kind in ("relu", "sigmoid", "softrelu")},
        **{f"Activation {kind}": of_x("Activation", act_type=kind) for kind in ("softsign", "tanh")},
        **{f"LeakyReLU {kind}": of_x("LeakyReLU", act_type=kind, slope=0.3) for kind in ("gelu", "leaky", "elu")},
        **{name: of_x(name) for name in ("abs", "erf", "exp", "negative", "relu", "sigmoid", "square", "tanh")},
        "Cast to whole numbers": lambda x, y: mx.sym.Cast(mx.sym.Cast(x, dtype="int32"), dtype="float32"),
        "arange_like": lambda x, y: mx.sym.broadcast_add(x, mx.sym.contrib.arange_like(y, axis=3)),
        "arange_like in steps": lambda x, y: mx.sym.broadcast_add(
            x, mx.sym.contrib.arange_like(y, axis=-1, start=2, step=0.5)
        ),
        "log": lambda x, y: mx.sym.log(mx.sym.abs(x)),
        "sqrt": lambda x, y: mx.sym.sqrt(mx.sym.abs(x)),
        "dense": of_x("FullyConnected", num_hidden=6, name="fc"),
        "dense of each row": of_x("FullyConnected", num_hidden=6, flatten=False, name="fc"),
        "dense without bias": of_x("FullyConnected", num_hidden=6, flatten=False, no_bias=True, name="fc"),
        "dense with a computed weight": lambda x, y: mx.sym.FullyConnected(
            x, mx.sym.exp(weight()), num_hidden=5, no_bias=True, flatten=False
        ),
        "dense whose weight is read elsewhere": read_twice,
        "LayerNorm": of_x("LayerNorm", eps=1e-3, name="ln"),
        **{
            f"L2Normalization {mode}": of_x("L2Normalization", mode=mode) for mode in ("instance", "channel", "spatial")
        },
        "softmax": of_x("softmax"),
        "softmax of an axis": of_x("softmax", axis=1, temperature=2.5),
        "log_softmax": of_x("log_softmax", axis=-2),
        "SoftmaxOutput preserve_shape": of_x("SoftmaxOutput", preserve_shape=True, name="s"),
        "SoftmaxOutput multi_output": of_x("SoftmaxOutput", multi_output=True, name="s"),
        "SoftmaxActivation": of_x("SoftmaxActivation"),
        "SoftmaxActivation channel": of_x("SoftmaxActivation", mode="channel"),
        "Dropout BlockGrad identity": lambda x, y: mx.sym.identity(mx.sym.BlockGrad(mx.sym.Dropout(x))),
        "div_sqrt_dim": lambda x, y: mx.sym.contrib.div_sqrt_dim(x),
        **{
            f"Reshape {shape}": of_x("Reshape", shape=shape)
            for shape in [(0, 0, -1), (-1, 5), (0, -1, 2, 5), (0, 3, -2), (0, -2), (-1,), (6, -1, 0)]
        },
        **{
            f"Reshape {shape} reverse": of_x("Reshape", shape=shape, reverse=True)
            for shape in [(-1, 0, 0), (-1, 3, 0, 0), (0, -1, 0), (2, 12, 0), (-2, 0), (-2, 2, 10)]
        },
        "transpose": of_x("transpose", axes=(0, 2, 1, 3)),
        "transpose backwards": of_x("transpose"),
        "SwapAxis": of_x("SwapAxis", dim1=1, dim2=3),
        "expand_dims": of_x("expand_dims", axis=1),
        "expand_dims from the end": of_x("expand_dims", axis=-1),
        "Flatten": of_x("Flatten"),
        "two operators of one name": lambda x, y: mx.sym.exp(mx.sym.tanh(x, name="one"), name="one"),
        "slice": of_x("slice", begin=(None, 1), end=(None, 3)),
        "slice with steps": of_x("slice", begin=(0, 0, -3), end=(2, 3, None), step=(1, 2, 1)),
        "slice_axis": of_x("slice_axis", axis=-1, begin=1, end=None),
        "slice_axis from the end": of_x("slice_axis", axis=2, begin=-3, end=-1),
        "slice_like": lambda x, y: mx.sym.slice_like(x, mx.sym.slice_axis(y, axis=2, begin=0, end=2), axes=(2,)),
        "slice_like of all axes": lambda x, y: mx.sym.slice_like(x, mx.sym.slice_axis(y, axis=3, begin=0, end=2)),
        "Concat": of_both("Concat", dim=2),
        "stack": of_both("stack", axis=1),
        "SliceChannel": lambda x, y: mx.sym.SliceChannel(x, num_outputs=2, axis=2)[1],
        "SliceChannel squeezed": lambda x, y: mx.sym.SliceChannel(x, num_outputs=3, axis=1, squeeze_axis=True)[2],
        "tile": of_x("tile", reps=(2, 1, 3)),
        "zeros_like ones_like": lambda x, y: mx.sym.zeros_like(x) + mx.sym.ones_like(y) * 3,
        "_arange": lambda x, y: mx.sym.broadcast_add(x, mx.sym.arange(1, 6)),
        "_arange of a start alone": lambda x, y: mx.sym.broadcast_add(x, mx.sym.arange(5)),
        "_arange of an inferred length": lambda x, y: mx.sym.elemwise_add(
            mx.sym.arange(2, step=0.5, infer_range=True), x.reshape((-1,))
        ),
        "_arange of two ranges": lambda x, y: mx.sym.broadcast_add(
            mx.sym.broadcast_add(x, mx.sym.arange(5)), mx.sym.arange(0, 10, step=2)
        ),
        **{f"{name} of an axis": of_x(name, axis=1) for name in ("sum", "mean", "max", "min")},
        **{f"{name} of two axes": of_x(name, axis=(0, -1), keepdims=True) for name in ("sum", "mean", "max", "min")},
        **{f"{name} of all but one": of_x(name, axis=2, exclude=True) for name in ("sum", "mean", "max", "min")},
        "sum of all": of_x("sum"),
        "mean of all": of_x("mean", keepdims=True),
        **{f"elemwise_{name}": of_both(f"elemwise_{name}") for name in ("add", "sub", "mul", "div")},
        **{f"broadcast_{name}": broadcast(f"broadcast_{name}") for name in ("add", "sub", "mul", "div")},
        **{f"broadcast_{name}": broadcast(f"broadcast_{name}") for name in ("maximum", "minimum", "lesser", "greater")},
        "broadcast_power": lambda x, y: mx.sym.broadcast_power(mx.sym.abs(x), y),
        "numbers": lambda x, y: 3 / (2 - (x * 5 + 1)) - 4,
        "more numbers": lambda x, y: mx.sym.maximum(mx.sym.minimum((x / 3) ** 2, 0.4), 0.1),
        "clip": of_x("clip", a_min=-0.5, a_max=0.75),
        "at least a number": lambda x, y: x >= 0.25,
        "where": lambda x, y: mx.sym.where(mx.sym.broadcast_lesser(x, y), x, y * 2),
        "Cast": of_x("Cast", dtype="float32"),
        "SequenceMask without lengths": of_x("SequenceMask"),
    },
    (3, 4): {
        "dense of a matrix": of_x("FullyConnected", num_hidden=6, no_bias=True, name="fc"),
        "SoftmaxOutput of a matrix": of_x("SoftmaxOutput", name="s"),
        "SoftmaxActivation of a matrix": of_x("SoftmaxActivation"),
        "LinearRegressionOutput": of_x("LinearRegressionOutput", name="s"),
        "LogisticRegressionOutput": of_x("LogisticRegressionOutput", name="s"),
        "SequenceMask of a matrix": masked(3, axis=1, value=-1e9),
    },
    (2, 3, 4): {
        "batch_dot": of_both("batch_dot", transpose_b=True),
        "batch_dot from the other side": of_both("batch_dot", transpose_a=True),
        "SequenceMask": masked(2, axis=1),
        "SequenceMask time first": masked(3, axis=0, value=7),
    },
    (4, 3, 5): {"softmax with lengths": with_lengths},
    (5, 3, 24): {"interleaved attention": attend},
    (2, 1, 3, 1): {
        "squeeze": of_x("squeeze"),
        "squeeze an axis": of_x("squeeze", axis=1),
        "broadcast_to": of_x("broadcast_to", shape=(0, 4, 0, 2)),
        "broadcast_like": lambda x, y: mx.sym.broadcast_like(x, mx.sym.tile(y, reps=(1, 2, 1, 3))),
        "broadcast_axis": of_x("broadcast_axis", axis=(1, 3), size=(4, 2)),
    },
}

REFUSED: dict[str, tuple[Make, str]] = {
    "codes that join axes": (of_x("Reshape", shape=(-3, 0, 0), name="it"), "has the shape '(-3, 0, 0)'"),
    "Dropout at inference": (of_x("Dropout", mode="always", name="it"), "also drops at inference"),
    "another dtype": (
        lambda x, y: mx.sym.Cast(mx.sym.Cast(x, dtype="uint8", name="it"), dtype="float32"),
        "gives uint8",
    ),
    "LayerNorm of another axis": (of_x("LayerNorm", axis=1, name="it"), "normalizes axis 1 of 4"),
    "slice backwards": (of_x("slice", begin=(None,), end=(None,), step=(-1,), name="it"), "goes backwards"),
    "tile with a new axis": (of_x("tile", reps=(1, 1, 1, 1, 2), name="it"), "adds axes"),
    "SoftmaxOutput of more axes": (of_x("SoftmaxOutput", name="it"), "has more than two axes and no preserve_shape"),
    "a length of softmax along another axis": (
        lambda x, y: mx.sym.softmax(x, mx.sym.var("n", shape=(2, 4, 5)), axis=1, use_length=True, name="it"),
        "reads a length (use_length)",
    ),
    "a range as long as its reader": (
        lambda x, y: mx.sym.broadcast_add(x, mx.sym.contrib.arange_like(y, name="it")),
        "numbers all elements",
    ),
    "a range whose length MXNet infers from a product": (
        lambda x, y: mx.sym.elemwise_mul(x.reshape((-1,)), mx.sym.arange(0, infer_range=True, name="it")),
        "takes its length from its reader (infer_range)",
    ),
    "broadcast_like of some axes": (
        lambda x, y: mx.sym.broadcast_like(
            mx.sym.sum(x, axis=1, keepdims=True), y, lhs_axes=(1,), rhs_axes=(1,), name="it"
        ),
        "broadcasts some axes only",
    ),
    "selu": (of_x("LeakyReLU", act_type="selu", name="it"), "has the activation 'selu'"),
    "an output that is a by-product": (
        lambda x, y: mx.sym.broadcast_add(x, mx.sym.LayerNorm(x, output_mean_var=True, name="it")[1], name="reader"),
        "reads it:1, which does not convert to ONNX",
    ),
    "an operator that is not in the table": (of_x("sort", name="it"), "does not convert to ONNX"),
}


def saved(folder: Path, make: Make, shape: tuple[int, ...]) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """A checkpoint of a symbol plus a parameter of zeros, and the shapes of its inputs."""
    symbol = make(mx.sym.var("x"), mx.sym.var("y"))
    symbol = mx.sym.broadcast_add(symbol, mx.sym.var("nothing_bias", shape=(1,)), name="end")
    names = symbol.list_arguments()
    inputs = {name: shape for name in ("x", "y") if name in names}
    sizes, _, _ = symbol.infer_shape(**inputs)
    rng = np.random.default_rng(2)
    params = {
        name: mx.nd.array(rng.normal(size=size))
        for name, size in zip(names, sizes)
        if name not in inputs and not name.endswith("label")
    }
    params["nothing_bias"] = mx.nd.zeros(1)
    mx.model.save_checkpoint(str(folder / "net"), 0, symbol, params, {})
    return folder / "net", inputs


@pytest.mark.parametrize(
    ("make", "shape"),
    [pytest.param(make, shape, id=name) for shape, cases in CASES.items() for name, make in cases.items()],
)
def test_an_operator_computes_the_same_as_mxnet(tmp_path: Path, make: Make, shape: tuple[int, ...]) -> None:
    prefix, inputs = saved(tmp_path, make, shape)
    export_onnx(ModelSource(prefix, shapes=inputs), tmp_path / "net.onnx")
    rng = np.random.default_rng(3)
    values = {name: rng.normal(size=size).astype(np.float32) for name, size in inputs.items()}
    assert_as_mxnet(tmp_path / "net.onnx", prefix, values)


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_an_unconvertible_graph_is_refused_with_its_node(cli: Cli, tmp_path: Path, make: Make, why: str) -> None:
    prefix, inputs = saved(tmp_path, make, FOUR)
    shapes = [word for name, shape in inputs.items() for word in ("--shape", f"{name}={','.join(map(str, shape))}")]
    line = refusal(cli("onnx", prefix, tmp_path / "net.onnx", *shapes), tmp_path / "net.onnx")
    assert "node 'it' (" in line or "node 'reader' (" in line
    assert why in line


def test_every_operator_of_the_table_is_tested() -> None:
    from bertsym.onnx_export.operator_converters import CONVERTERS

    tested = {"Embedding"}  # in every BERT
    tested |= {"_contrib_quantize_v2", "_sg_mkldnn_fully_connected"}  # in test_int8_arithmetic.py
    for cases in CASES.values():
        for make in cases.values():
            graph = SymbolGraph.parse(make(mx.sym.var("x"), mx.sym.var("y")).tojson())
            tested.update(node.op for node in graph.nodes)
    assert set(CONVERTERS) - tested == set()
