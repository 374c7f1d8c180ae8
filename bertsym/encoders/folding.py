"""The parameters of query, key and value as one: their names and shapes, and the way back."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import Shape

Array = np.ndarray[Any, np.dtype[Any]]

JOINED = "query_key_value"  #: in the names of what is one
_PARTS = ("query", "key", "value")


def is_folded(names: Collection[str]) -> bool:
    """Whether parameters of these names are a folded encoder's."""
    return any(f"_{JOINED}_" in name for name in names)


def folded_shapes(shapes: Mapping[str, Shape], names: Collection[str]) -> dict[str, Shape]:
    """The shapes of an encoder's parameters, those of query, key and value as one where `names` has that one."""
    folded: dict[str, Shape] = {}
    for name, shape in shapes.items():
        joined = _joined(name)
        if joined != name and joined in names:
            folded[joined] = (3 * shape[0], *shape[1:])
        else:
            folded[name] = shape
    return folded


def unfolded(params: Mapping[str, Array], config: BertConfig) -> dict[str, Array]:
    """The parameters of an encoder that is not folded: of the queries without their scale."""
    scale = np.float32(math.sqrt(config.units // config.num_heads))
    arrays: dict[str, Array] = {}
    for name, array in params.items():
        if f"_{JOINED}_" not in name:
            arrays[name] = array
            continue
        for part, rows in zip(_PARTS, np.split(array, 3)):
            arrays[name.replace(JOINED, part)] = rows * scale if part == "query" else rows
    return arrays


def _joined(name: str) -> str:
    for part in _PARTS:
        name = name.replace(f"cell0_{part}_", f"cell0_{JOINED}_")
    return name
