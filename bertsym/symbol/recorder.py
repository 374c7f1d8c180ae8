"""Building a graph with the calling interface of ``mx.sym``, without mxnet.

``sym.FullyConnected(x, weight, bias, num_hidden=8, name="fc")`` records a node; the JSON is that which MXNet 1.9.1
writes for the same calls, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output
from bertsym.symbol.operator_versions import is_operator

_ALIASES = {"concat": "Concat", "reshape": "Reshape"}
_VARIADIC = ("Concat", "stack")  # which MXNet gives the attribute num_args
_OUTPUTS = {"Dropout": 2, "LayerNorm": 3}  # hidden ones included


class RecordedSymbol:
    """What recorded nodes end in; it is called like an ``mx.sym.Symbol``, as far as builders of graphs need it."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self.outputs = tuple(outputs)

    def get_internals(self) -> dict[str, RecordedSymbol]:
        """The variables by name."""
        return {node.name: RecordedSymbol([Output(node)]) for node in self._nodes() if node.is_variable}

    def graph(self) -> SymbolGraph:
        """The graph of all nodes that the outputs depend on."""
        graph = SymbolGraph(self._nodes(), self.outputs)
        graph.check()
        return graph

    def tojson(self) -> str:
        """The symbol JSON."""
        return self.graph().to_json()

    def _nodes(self) -> list[Node]:
        """In the order of nnvm's depth-first search: a node's inputs come before it, from the first to the last."""
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
    """Functions that record a node of the operator whose name they have after a prefix."""

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
    def var(name: str, shape: tuple[int, ...] | None = None) -> RecordedSymbol:
        """An input or a parameter."""
        return _recorded(VARIABLE, name, {} if shape is None else {"__shape__": str(shape)}, ())

    @staticmethod
    def Group(symbols: Iterable[RecordedSymbol]) -> RecordedSymbol:
        """Several symbols as one with all their outputs."""
        return RecordedSymbol([output for symbol in symbols for output in symbol.outputs])


def _recorded(op: str, name: str, attrs: Mapping[str, str], inputs: Iterable[Output]) -> RecordedSymbol:
    return RecordedSymbol([Output(Node(op, name, dict(sorted(attrs.items())), tuple(inputs), _OUTPUTS.get(op, 1)))])


sym: Any = _Symbols()
