"""Symbols for mxnet, without what it prints on the way."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from bertsym.errors import ModelError
from bertsym.runtime import mx, mxnet_errors, quiet_stderr
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output

#: numbers of dtypes in ``__dtype__`` -> their names
DTYPES = {0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool"}


def load_symbol(graph: SymbolGraph, outputs: Iterable[Output], where: str) -> Any:
    """The graph as an mx.sym.Symbol that ends in these outputs."""
    whole = SymbolGraph(graph.nodes, outputs, graph.document)
    load = mx.sym.load_json  # mxnet itself is imported here, where its messages are heard
    with mxnet_errors(where), quiet_stderr():
        return load(whole.to_json())


@contextlib.contextmanager
def quiet_inference() -> Iterator[None]:
    """Without what mxnet prints and warns when shapes don't fit: the error says it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def listed_outputs(graph: SymbolGraph, where: str) -> list[str]:
    """What MXNet calls the outputs of a graph: ``fc_output``, ``split_output2``, ``data0``.

    Raises ModelError, naming `where`, for a graph that MXNet does not load: an unknown operator, attribute, dtype.
    """
    names = load_symbol(graph, graph.outputs, where).list_outputs()
    for node in graph.nodes:
        if node.is_variable and integer(node.attrs, "__dtype__", 0) not in DTYPES:
            raise ModelError(f"{where}: {node.name}: there is no dtype {node.attrs['__dtype__']}")
    return [str(name) for name in names]
