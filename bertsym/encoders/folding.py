"""Parameters of query, key and value folded into one: names, shapes, and unfolding."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import Shape

FOLDED_NAME = "query_key_value"  #: replaces ``query`` in names of folded nodes and parameters
PARTS = ("query", "key", "value")


def is_folded(names: Collection[str]) -> bool:
    """Whether parameters with these names belong to a folded encoder."""
    return any(f"_{FOLDED_NAME}_" in name for name in names)


def folded_shapes(shapes: Mapping[str, Shape], names: Collection[str]) -> dict[str, Shape]:
    """Return shapes of an encoder's parameters; query, key and value are folded where `names` has the folded name.

    They may be there as well: where layers share them, the last layer may compute the query of position 0 alone.
    """
    folded: dict[str, Shape] = {}
    for name, shape in shapes.items():
        new = _folded_name(name)
        is_new = new != name and new in names
        if is_new:
            folded[new] = (3 * shape[0], *shape[1:])
        if not is_new or name in names:
            folded[name] = shape
    return folded


def unfold_parameters(params: Mapping[str, Array], config: BertConfig) -> dict[str, Array]:
    """Split folded parameters into query, key and value, and undo the scale of the queries."""
    scale = query_scale(config)
    arrays: dict[str, Array] = {}
    for name, array in params.items():
        if f"_{FOLDED_NAME}_" not in name:
            arrays[name] = array
            continue
        for part, rows in zip(PARTS, np.split(array, 3)):
            unfolded = name.replace(FOLDED_NAME, part)
            if unfolded not in params:
                arrays[unfolded] = rows * scale if part == "query" else rows
    return arrays


def query_scale(config: BertConfig) -> np.float32:
    """Return the number by which folding divides query weights and biases."""
    return np.float32(math.sqrt(config.units // config.num_heads))


def interleave_heads(arrays: Sequence[Array], heads: int) -> Array:
    """Join arrays head by head, as MXNet's interleaved attention reads them: (U, ...) each -> (len * U, ...)."""
    by_head = np.concatenate([array.reshape(heads, -1, *array.shape[1:]) for array in arrays], 1)
    joined: Array = by_head.reshape(-1, *arrays[0].shape[1:])
    return joined


def _folded_name(name: str) -> str:
    for part in PARTS:
        name = name.replace(f"cell0_{part}_", f"cell0_{FOLDED_NAME}_")
    return name
