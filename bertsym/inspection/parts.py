"""The parameters of a model by the part of the graph that reads them: embeddings, layers, pooler, head."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from bertsym.analysis.classifier_report import InputKind
from bertsym.model import Model
from bertsym.symbol.node import Node
from bertsym.symbol.params import ArrayInfo


class PartKind(enum.Enum):
    """A part of a graph that has parameters."""

    EMBEDDINGS = "embeddings"
    LAYER = "layer"
    POOLER = "pooler"
    HEAD = "head"
    ALL = "all"  #: of a graph without a BERT


_PartKey = tuple[PartKind, Union[int, None]]  # with the number of a LAYER


@dataclass(frozen=True)
class Part:
    """Size of the parameters of one part of a graph."""

    kind: PartKind
    layer: int | None  #: number of a LAYER
    arrays: int
    elements: int
    bytes: int

    @property
    def name(self) -> str:
        """``pooler``, ``layer 3``."""
        return self.kind.value if self.layer is None else f"{self.kind.value} {self.layer}"

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {"name": self.name, "arrays": self.arrays, "numbers": self.elements, "bytes": self.bytes}


def group_parameters(model: Model) -> list[Part]:
    """Group the parameters by the part of the graph that reads them; leave out parameters that nothing reads."""
    if model.params is None:
        return []
    places: dict[_PartKey, list[str]] = {}
    for name, part in _find_parts(model).items():
        if name in model.param_shapes:
            places.setdefault(part, []).append(name)
    infos = model.params.infos
    return [_measure_part(key, [infos[array] for array in arrays]) for key, arrays in places.items()]


def _measure_part(key: _PartKey, infos: Sequence[ArrayInfo]) -> Part:
    elements = sum(info.nbytes // _element_size(info.dtype) for info in infos)
    return Part(*key, len(infos), elements, sum(info.nbytes for info in infos))


def _element_size(dtype: str) -> int:
    return {"<f8": 8, "<i8": 8, "<f4": 4, "<i4": 4, "<f2": 2}.get(dtype, 1)


def _find_parts(model: Model) -> dict[str, _PartKey]:
    """Parameter -> its part, in the order of the graph."""
    encoder, graph = model.encoder, model.graph
    if encoder is None:
        return dict.fromkeys(model.parameters, (PartKind.ALL, None))
    embeddings: _PartKey = (PartKind.EMBEDDINGS, None)
    # Later entries override earlier ones.
    parts: dict[Node, _PartKey] = dict.fromkeys(graph.ancestors(encoder.layers[0].output.node), embeddings)
    for report in model.classifier_reports:
        if report.kind is InputKind.POOLED:
            pooler = graph.between(encoder.output.node, report.reads.node)
            parts.update(dict.fromkeys(pooler, (PartKind.POOLER, None)))
    parts.update((node, (PartKind.LAYER, i)) for i, layer in enumerate(encoder.layers) for node in layer.nodes)
    parts.update(dict.fromkeys(encoder.embedding_nodes, embeddings))
    found: dict[str, _PartKey] = {}
    wanted = set(model.parameters)
    for node in graph.nodes:
        part = parts.get(node, (PartKind.HEAD, None))
        for entry in node.inputs:
            if entry.node.is_variable and entry.node.name in wanted:
                found.setdefault(entry.node.name, part)
    return found
