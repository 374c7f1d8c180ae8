"""Training only those rows of the word embedding that the data uses: the others just decay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node
from bertsym.symbol.params import Array


class UsedRows:
    """The rows of an embedding table whose ids occur, in the place of the whole table.

    A row that no batch reads has no gradient, and no moments in Adam: its only change is the decay, which `whole`
    makes up for.
    """

    def __init__(self, name: str, table: Array, ids: Array) -> None:
        self.name = name  #: of the parameter
        self._table, self._ids = table, ids
        self._places = np.zeros(len(table), np.float32)
        self._places[ids] = np.arange(len(ids))

    @property
    def initial(self) -> Array:
        """The smaller table, (ids, U)."""
        initial: Array = self._table[self._ids]
        return initial

    def places(self, ids: Array) -> Array:
        """Where the rows of some ids are now, in the ids' shape, float32."""
        places: Array = self._places[ids.astype(np.int64)]
        return places

    def whole(self, trained: Array, decay: float) -> Array:
        """The whole table after training; `decay` is by what the rows that were left out are to be multiplied."""
        table = self._table * np.float32(decay)
        table[self._ids] = trained
        return table


def keep_used_rows(graph: SymbolGraph, token_ids: str, ids: Array, arg_params: Mapping[str, Array]) -> UsedRows | None:
    """Make the table of the embedding that reads `token_ids` one of the sorted `ids` alone, in place.

    None where there is no such table, or where something else reads it or the ids' values.
    """
    embeddings = [node for node in graph.find(op="Embedding") if node.inputs[0].node.name == token_ids]
    if len(embeddings) != 1:
        return None
    table = embeddings[0].inputs[1].node
    others = [node for node in graph.consumers(graph.variable(token_ids)) if node not in embeddings]
    if graph.consumers(table) != embeddings or not all(_reads_shape_alone(node) for node in others):
        return None
    rows = UsedRows(table.name, arg_params[table.name], ids)
    graph.set_attribute(embeddings[0], "input_dim", str(len(ids)))
    if "__shape__" in table.attrs:
        graph.set_attribute(table, "__shape__", str(rows.initial.shape))
    return rows


def _reads_shape_alone(node: Node) -> bool:
    return node.op in ("zeros_like", "ones_like")
