"""Learning rates by layer of the encoder: frozen layers, and rates that decay from the last layer to the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.acceleration.graphs import to_symbol
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.encoders.parameters import LAYER, RELATIVE_BUCKETS, expand
from bertsym.errors import UsageError
from bertsym.symbol.attributes import RATE_MULTIPLIER
from bertsym.symbol.graph import SymbolGraph
from bertsym.training.finetune_options import FinetuneOptions


def rate_multipliers(
    prefix: object, graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]], options: FinetuneOptions
) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter of an encoder that has one; 0 for a frozen parameter.

    Layers count from 1; everything before the first layer, with the biases by relative position, is layer 0. Raises
    UsageError for more layers than the encoder has, and for layers that share their parameters.
    """
    if options.freeze_layers is None and options.layer_decay == 1:
        return {}
    spec = extract_spec(graph, require_encoder(graph, shapes), shapes)
    total, frozen = spec.config.num_layers, options.freeze_layers
    if frozen is not None and frozen > total:
        raise UsageError(f"freeze_layers must be at most {total}, the layers of {prefix}, not {frozen}")
    if spec.config.shares_layers and (options.layer_decay != 1 or frozen not in (None, 0, total)):
        option = "layer_decay" if options.layer_decay != 1 else f"freeze_layers {frozen}"
        raise UsageError(
            f"{prefix}: its {total} layers share their parameters, so {option} is impossible; "
            f"freeze_layers 0 freezes the embeddings, {total} the whole encoder"
        )
    layers = {spec.name(name): 0 for name in spec.shapes}
    for template in LAYER:
        layers.update({spec.name(name): i for i, name in enumerate(expand(template, total), 1)})
    rates = {
        name: 0.0 if frozen is not None and layer <= frozen else options.layer_decay ** (total - layer)
        for name, layer in layers.items()
    }
    if RELATIVE_BUCKETS in spec.shapes:  # a constant
        rates[spec.name(RELATIVE_BUCKETS)] = 0.0
    return {name: rate for name, rate in rates.items() if rate != 1}


def with_rate_multipliers(symbol: Any, multipliers: Mapping[str, float]) -> Any:
    """Return a symbol whose parameters have these factors as ``__lr_mult__``, which MXNet's optimizers apply too."""
    if not multipliers:
        return symbol
    graph = SymbolGraph.parse(symbol.tojson())
    with graph.edit():
        for name, multiplier in multipliers.items():
            graph.set_attribute(graph.variable(name), RATE_MULTIPLIER, repr(multiplier))
    return to_symbol(graph)
