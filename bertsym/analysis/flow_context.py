"""The graph, the encoder and the parameters that the rules of `token_flow` look up."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.constants import shape_of
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.variable_roles import input_variables, label_variables


@dataclass(frozen=True)
class FlowContext:
    """What the rules need besides a node and the trace of its input."""

    graph: SymbolGraph
    encoder: DetectedEncoder
    params: Mapping[str, Any] | None

    @functools.cached_property
    def inputs(self) -> set[str]:
        """Variables that are not parameters."""
        return {*input_variables(self.graph, self.params or ()), *label_variables(self.graph)}

    def reads_input(self, output: Output) -> bool:
        """Whether a tensor depends on an input, and not only on parameters."""
        return any(node.is_variable and node.name in self.inputs for node in self.graph.ancestors(output.node))

    def shape(self, output: Output) -> tuple[int, ...] | None:
        """Return the shape of a parameter, if it is known."""
        return shape_of(output, self.params)
