"""Shrink the token embedding to the rows that the data uses; the other rows only decay while training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertsym.array import Array
from bertsym.symbol.attributes import RATE_MULTIPLIER, decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.operator_traits import traits


class UsedRows:
    """The rows of an embedding table whose ids occur in the data.

    A row that no batch reads has neither a gradient nor moments in Adam. Weight decay alone changes it, and `restore`
    applies that.
    """

    def __init__(self, name: str, table: Array, ids: Array) -> None:
        self.name = name  #: of the parameter
        self._table, self._ids = table, ids
        self._positions = np.zeros(len(table), np.float32)
        self._positions[ids] = np.arange(len(ids))

    @property
    def initial(self) -> Array:
        """The smaller table, (ids, U)."""
        initial: Array = self._table[self._ids]
        return initial

    def remap(self, ids: Array) -> Array:
        """The rows of the smaller table that hold some ids, in the shape of the ids, float32."""
        positions: Array = self._positions[ids.astype(np.int64)]
        return positions

    def restore(self, trained: Array, decay: float) -> Array:
        """The whole table after training; rows that were left out are multiplied by `decay`."""
        table = self._table * np.float32(decay)
        table[self._ids] = trained
        return table


def keep_used_rows(graph: SymbolGraph, token_ids: str, ids: Array, arg_params: Mapping[str, Array]) -> UsedRows | None:
    """Shrink the table of the embedding that reads `token_ids` to the rows of the sorted `ids`, in place.

    None where there is no such table, where it is not trained, or where another node reads the table or the values of
    the ids.
    """
    embeddings = [node for node in graph.find(op="Embedding") if node.inputs[0].node.name == token_ids]
    if len(embeddings) != 1:
        return None
    table = embeddings[0].inputs[1].node
    if decimal(table.attrs, RATE_MULTIPLIER, 1.0) == 0:
        return None
    others = [node for node in graph.consumers(graph.variable(token_ids)) if node not in embeddings]
    if graph.consumers(table) != embeddings or not all(traits(node.op).shape_only == 0 for node in others):
        return None
    rows = UsedRows(table.name, arg_params[table.name], ids)
    with graph.edit():
        graph.set_attribute(embeddings[0], "input_dim", str(len(ids)))
        if "__shape__" in table.attrs:
            graph.set_attribute(table, "__shape__", str(rows.initial.shape))
    return rows
