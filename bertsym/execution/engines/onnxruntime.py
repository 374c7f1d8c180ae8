"""onnxruntime as the engine: a symbol is converted to ONNX in memory, by the converter that `bertsym onnx` uses.

It runs float32 graphs of operators that convert. Shapes are inferred here: by the rules of `symbol.shape_inference`
and, of operators that have none there, by running the operator on zeros.
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError, ModelError, VerificationError
from bertsym.execution.engines import Forward, Shape
from bertsym.mxnet_runtime import is_installed, openmp_threads, quiet_stderr
from bertsym.onnx_export.libraries import onnx_errors, open_session
from bertsym.passes import apply_to_copy
from bertsym.passes.inferred_ranges import resolve_inferred_ranges
from bertsym.signature import Tensor
from bertsym.symbol.attributes import sizes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output
from bertsym.symbol.operator_versions import oldest_mxnet
from bertsym.symbol.params import NewParameters, Parameters, shapes_of
from bertsym.symbol.shape_inference import infer_known

#: losses -> place of their label, which has no effect at inference
_LABELS = {"LinearRegressionOutput": 1, "LogisticRegressionOutput": 1, "SoftmaxOutput": 1}
_SPLITS = ("SliceChannel", "_split_v2")  # operators whose outputs MXNet numbers
# A protobuf message ends at 2 GiB; beyond this, parameters go into a file of their own.
_LARGEST = 2_000_000_000
_MOST_ELEMENTS = 1 << 24  # of the inputs of an operator that is run on zeros


def prepare() -> None:
    """Import onnx and onnxruntime."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401


def list_outputs(symbol: str, where: str) -> list[str]:
    """What MXNet calls the outputs; raises ModelError, naming `where`, for what MXNet 1.9.1 would not load."""
    graph = SymbolGraph.parse(symbol, where)
    for unknown in oldest_mxnet(graph.nodes).unknown:
        raise ModelError(f"{where}: node {unknown.node!r}: MXNet does not load {unknown.reason}")
    return [_output_name(output) for output in graph.outputs]


def infer_shapes(
    symbol: str, where: str, shapes: Mapping[str, Shape]
) -> tuple[dict[str, Shape | None], list[Shape | None]]:
    """The shapes of the variables by name, and of the outputs, as far as they follow from `shapes`.

    Raises ModelError when they contradict each other.
    """
    graph = SymbolGraph.parse(symbol, where)
    resolve_inferred_ranges(graph)
    known = _shapes(graph, shapes, where)
    variables = [node for node in graph.nodes if node.is_variable]
    return {node.name: known.get(Output(node)) for node in variables}, [known.get(output) for output in graph.outputs]


def bind(symbol: str, where: str, params: Mapping[str, Array], sample: Mapping[str, Array]) -> Forward:
    """A Session."""
    shapes = {name: array.shape for name, array in sample.items()}
    return Session(SymbolGraph.parse(symbol, where), params, shapes, where).run


def compute(
    symbol: str, where: str, fused: bool, params: Mapping[str, Array], inputs: Mapping[str, Array]
) -> list[Array]:
    """The elements of the outputs at inference; onnxruntime fuses operators whether or not `fused`.

    Raises ModelError when the symbol does not convert or can't be run, and DataError when an input is missing.
    """
    graph = SymbolGraph.parse(symbol, where)
    return Session(graph, params, {name: array.shape for name, array in inputs.items()}, where).run(inputs)


def check_params(symbol: str, where: str, others: Collection[str], params: Parameters) -> None:
    """Raise VerificationError unless the file has a float32 array for each variable but `others`, and no more."""
    expected = set(SymbolGraph.parse(symbol, where).variables) - set(others)
    missing, extra = sorted(expected - set(params)), sorted(set(params) - expected)
    if missing or extra:
        found = f"missing {', '.join(missing[:5]) or 'none'}, unused {', '.join(extra[:5]) or 'none'}"
        raise VerificationError(f"{where}: the parameters are not those of the symbol: {found}")


def compute_loaded(
    symbol: str,
    where: str,
    loader: str,
    labels: Sequence[str],
    params: Parameters,
    inputs: Mapping[str, Array],
) -> list[Array]:
    """What the files compute: the same conversion, from the symbol and the parameters that were read back."""
    return compute(symbol, where, True, params, inputs)


class OpenSession:
    """A session of onnxruntime, which does not survive a fork: in the child it is opened again when it is first run."""

    def __init__(self, open_again: Callable[[], Any]) -> None:
        self._open, self._process = open_again, os.getpid()
        self.session = open_again()

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return all outputs."""
        if self._process != os.getpid():
            # Its threads are not in this process: to end the session would wait for them for ever.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.session))
            self._process, self.session = os.getpid(), self._open()
        found: list[Array] = self.session.run(None, inputs)
        return found


class Session:
    """A graph with its parameters, converted and loaded, for inputs of any size on the axes that the graph leaves free.

    `shapes` are those of sample inputs.
    """

    def __init__(
        self, graph: SymbolGraph, params: Mapping[str, Array], shapes: Mapping[str, Shape], where: str
    ) -> None:
        self._graph = apply_to_copy(graph, resolve_inferred_ranges)
        self._params, self._sizes, self._where = params, dict(shapes), where
        self._computed = [output for output in self._graph.outputs if not output.node.is_variable]
        self._dtypes: dict[str, str] = {}
        self._session = OpenSession(self._converted) if self._computed else None

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """All outputs of the graph, float32."""
        fed = {name: np.asarray(inputs[name]).astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        values: dict[Output, Array] = {}
        if self._session is not None:
            with onnx_errors(self._where, "onnxruntime can't run it"), np.errstate(all="ignore"):
                values = dict(zip(self._computed, self._session.run(fed)))
        for output in self._graph.outputs:
            if output.node.is_variable:
                name = output.node.name
                values[output] = np.asarray(inputs[name] if name in inputs else self._params[name])
        return [values[output] for output in self._graph.outputs]

    def _converted(self) -> Any:
        from bertsym.onnx_export.graph_conversion import check_operators, convert, integer_inputs, needed_nodes

        where, graph = self._where, self._graph.part(self._computed)
        advice = "; the engine mxnet runs it"
        check_operators(graph, where, advice)
        read = _read_variables(graph, needed_nodes(graph))
        given = {name: shape for name, shape in self._sizes.items() if name in read}
        missing = [name for name in read if name not in given and name not in self._params]
        if missing:
            raise DataError(f"{where}: the input {missing[0]} is missing")
        known = _shapes(graph, {**shapes_of(self._params), **self._sizes}, where)
        whole = integer_inputs(graph, list(given))
        tensors = [
            Tensor(name, tuple(f"{name} {axis}" for axis in range(len(shape))), "int64" if name in whole else "float32")
            for name, shape in given.items()
        ]
        self._dtypes = {tensor.name: tensor.dtype for tensor in tensors}
        names = [Tensor(f"output {i}") for i in range(len(self._computed))]
        params = self._params if isinstance(self._params, Parameters) else NewParameters(self._params)
        ranks = {output: len(shape) for output, shape in known.items()}
        model = convert(graph, params, ranks, tensors, names, metadata={}, where=where, advice=advice)
        return load_model(model, where)


def _read_variables(graph: SymbolGraph, nodes: Sequence[Node]) -> list[str]:
    """Variables that are computed with: all but labels."""
    read = {
        entry.node
        for node in nodes
        for place, entry in enumerate(node.inputs)
        if entry.node.is_variable and _LABELS.get(node.op) != place
    }
    return [node.name for node in graph.nodes if node in read]


def load_model(model: Any, where: str, without: Sequence[str] = ()) -> Any:
    """A session of onnxruntime of an ONNX model in memory, which is emptied: parameters are not held three times.

    `without` are names of onnxruntime's optimizers that it must not run.
    """
    import onnx

    with quiet_stderr(), onnx_errors(where, "onnxruntime can't load it"):
        if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < _LARGEST:
            content = model.SerializeToString()
            model.Clear()
            return open_session(content, openmp_threads(), without)
        with tempfile.TemporaryDirectory(prefix="bertsym-") as folder:
            path = Path(folder, "model.onnx")
            onnx.save(model, str(path), save_as_external_data=True, location="model.onnx.data")
            return open_session(path, openmp_threads(), without)


def _shapes(graph: SymbolGraph, given: Mapping[str, Shape], where: str) -> dict[Output, Shape]:
    """The shapes of all tensors that are known."""
    declared = {node.name: sizes(node.attrs, "__shape__") for node in graph.nodes if node.is_variable}
    known = {name: shape for name, shape in declared.items() if shape is not None}
    known.update({name: tuple(shape) for name, shape in given.items() if shape and 0 not in shape})
    return infer_known(graph, known, where, _shapes_on_zeros)


def _shapes_on_zeros(node: Node, inputs: Sequence[Shape]) -> list[Shape] | None:
    """The shapes of an operator's outputs, found by running it; None where it does not convert."""
    if not (is_installed("onnx") and is_installed("onnxruntime")):
        return None
    from bertsym.onnx_export.operator_converters import CONVERTERS

    if node.op not in CONVERTERS or sum(map(math.prod, inputs)) > _MOST_ELEMENTS:
        return None
    variables = [Node(VARIABLE, f"input {i}") for i in range(len(inputs))]
    alone = Node(node.op, node.name, node.attrs, tuple(map(Output, variables)), node.num_outputs)
    count = node.num_outputs if node.op in _SPLITS else 1
    graph = SymbolGraph([*variables, alone], [Output(alone, i) for i in range(count)])
    zeros = {variable.name: np.zeros(shape, np.float32) for variable, shape in zip(variables, inputs)}
    try:
        return [array.shape for array in _run_operator(graph, zeros)]
    except ModelError:  # what does not convert has an unknown shape
        return None


def _run_operator(graph: SymbolGraph, inputs: Mapping[str, Array]) -> list[Array]:
    from bertsym.onnx_export.graph_conversion import convert, integer_inputs

    whole = integer_inputs(graph, list(inputs))
    dtypes = {name: "int64" if name in whole else "float32" for name in inputs}
    tensors = [Tensor(name, array.shape, dtypes[name]) for name, array in inputs.items()]
    ranks = {Output(graph.variable(name)): array.ndim for name, array in inputs.items()}
    names = [Tensor(f"output {i}") for i in range(len(graph.outputs))]
    model = convert(graph, NewParameters({}), ranks, tensors, names, metadata={}, where="shapes")
    session = load_model(model, "shapes")
    fed = {tensor.name for tensor in session.get_inputs()}
    with onnx_errors("shapes", "onnxruntime can't run it"):
        arrays = {name: array.astype(dtypes[name]) for name, array in inputs.items() if name in fed}
        found: list[Array] = session.run(None, arrays)
        return found


def _output_name(output: Output) -> str:
    node = output.node
    if node.is_variable:
        return node.name
    numbered = output.index or (node.op in _SPLITS and node.num_outputs > 1)
    return f"{node.name}_output{output.index if numbered else ''}"
