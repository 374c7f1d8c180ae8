"""Build a graph with the interface of ``mx.sym``, without mxnet.

``sym.FullyConnected(x, weight, bias, num_hidden=8, name="fc")`` records a node. The JSON is byte-identical to
that which MXNet 1.9.1 writes for the same calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output
from bertsym.symbol.operator_versions import is_operator

_ALIASES = {"concat": "Concat", "reshape": "Reshape"}
_VARIADIC = ("Concat", "stack")  # which MXNet gives the attribute num_args
_DTYPES = {"float32": 0}  # MXNet's numbers
_OUTPUTS = {"Dropout": 2, "LayerNorm": 3}  # hidden ones included


class RecordedSymbol:
    """Outputs of recorded nodes, with the part of the interface of ``mx.sym.Symbol`` that graph builders use."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self.outputs = tuple(outputs)

    def get_internals(self) -> dict[str, RecordedSymbol]:
        """Return the variables by name."""
        return {node.name: RecordedSymbol([Output(node)]) for node in self._nodes() if node.is_variable}

    def graph(self) -> SymbolGraph:
        """Return the graph of all nodes that the outputs depend on."""
        graph = SymbolGraph(self._nodes(), self.outputs)
        graph.check()
        return graph

    def tojson(self) -> str:
        """Return the symbol JSON."""
        return self.graph().to_json()

    def _nodes(self) -> list[Node]:
        """List nodes in the order of nnvm's depth-first search: the inputs of a node, in order, before the node."""
        found: dict[Node, None] = {}
        for output in self.outputs:
            waiting = [(output.node, 0)]
            while waiting:
                node, place = waiting.pop()
                if node in found:
                    continue
                if place == len(node.inputs):
                    found[node] = None
                    continue
                waiting += [(node, place + 1), (node.inputs[place].node, 0)]
        return list(found)


class _Operators:
    """A namespace of functions that record nodes; a prefix and the function's name give the operator."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        op = self._prefix + _ALIASES.get(name, name)
        if not is_operator(op):
            raise AttributeError(f"{op!r} is not an operator of MXNet 1.9.1")

        def record(*inputs: RecordedSymbol, name: str, **attributes: Any) -> RecordedSymbol:
            attrs = {key: str(value) for key, value in attributes.items()}
            if op in _VARIADIC:
                attrs["num_args"] = str(len(inputs))
            return _recorded(op, name, attrs, [output for symbol in inputs for output in symbol.outputs])

        return record


class _Symbols(_Operators):
    """The functions of ``mx.sym``."""

    contrib, _internal = _Operators("_contrib_"), _Operators()

    @staticmethod
    def var(
        name: str,
        shape: tuple[int, ...] | None = None,
        lr_mult: float | None = None,
        wd_mult: float | None = None,
        dtype: str | None = None,
    ) -> RecordedSymbol:
        """Record an input or a parameter; `dtype` may be ``float32``."""
        settings = {
            "shape": shape,
            "lr_mult": lr_mult,
            "wd_mult": wd_mult,
            "dtype": None if dtype is None else _DTYPES[dtype],
        }
        attrs = {f"__{key}__": str(value) for key, value in settings.items() if value is not None}
        return _recorded(VARIABLE, name, attrs, ())

    @staticmethod
    def Group(symbols: Iterable[RecordedSymbol]) -> RecordedSymbol:
        """Group symbols into one with all their outputs."""
        return RecordedSymbol([output for symbol in symbols for output in symbol.outputs])


def _recorded(op: str, name: str, attrs: Mapping[str, str], inputs: Iterable[Output]) -> RecordedSymbol:
    return RecordedSymbol([Output(Node(op, name, dict(sorted(attrs.items())), tuple(inputs), _OUTPUTS.get(op, 1)))])


sym: Any = _Symbols()
