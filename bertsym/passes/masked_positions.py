"""Let the decoder for masked language modelling read every token."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bertsym.symbol.graph import SymbolGraph


@dataclass(frozen=True)
class DetachedPositions:
    """What selected the tokens before."""

    variable: str  #: the masked positions


def read_all_tokens(graph: SymbolGraph, sequences: Collection[str]) -> DetachedPositions | None:
    """Let what reads the tokens at masked positions read all tokens, in place.

    GluonNLP's BERTModel with a decoder takes the positions (N, M) as another input and gathers (N, M, U) from the
    encodings (N, T, U), one of the nodes `sequences`. Returns None where the graph does not gather so. A variable that
    nothing reads any more is removed.
    """
    gathers = [node for node in graph.nodes if node.op == "gather_nd" and node.inputs[0].node.name in sequences]
    if len(gathers) != 1:
        return None
    (gather,) = gathers
    readers = graph.consumers(gather)
    positions = [node for node in graph.ancestors(gather.inputs[1].node) if node.is_variable]
    if len(positions) != 1 or len(readers) != 1 or readers[0].op != "reshape_like":
        return None
    with graph.edit():
        graph.rewire(readers[0], gather.inputs[0])
        graph.cleanup()
    return DetachedPositions(positions[0].name)
