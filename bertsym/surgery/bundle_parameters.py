"""The parameters of a detected encoder and head under the names that bundles have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertsym.analysis.head_detection import DetectedHead
from bertsym.array import Array
from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM
from bertsym.encoders.folding import PARTS
from bertsym.encoders.outputs import output_parameters
from bertsym.encoders.parameters import POOLER
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.symbol.node import Node

POOLER_LAYER = next(iter(POOLER)).removesuffix("_weight")


def encoder_parameters(spec: EncoderSpec, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the parameters of the encoder under the names of `encoders.parameters`."""
    found: dict[str, Array] = {}
    for name in output_parameters(spec.config, "cls"):
        own = values[spec.name(name)]
        if spec.concatenated_biases and name.endswith(("_query_bias", "_key_bias", "_value_bias")):
            found[name] = _bias_by_head(name, spec, values)
        else:
            found[name] = np.ascontiguousarray(own.reshape(spec.shapes[name]))
    return found


def _bias_by_head(name: str, spec: EncoderSpec, values: Mapping[str, Array]) -> Array:
    """Return what GluonNLP 0.9 adds to query, key or value: parts of biases that it concatenates as q, k, v."""
    stem, _, part = name.removesuffix("_bias").rpartition("_")
    both = np.concatenate([values[spec.name(f"{stem}_{each}_bias")] for each in PARTS])
    by_head = both.reshape(spec.config.num_heads, len(PARTS), -1)
    return np.ascontiguousarray(by_head[:, PARTS.index(part)]).reshape(-1)


def head_parameters(head: DetectedHead, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the parameters of a head, and of the pooler that it reads, under the names of bundles.

    Raises ModelError for a parameter that is computed.
    """
    found = dense_parameters(head.last, FULLY_CONNECTED, values)
    if head.transform is not None:
        found.update(dense_parameters(head.transform.dense, HEAD_TRANSFORM, values))
    if head.pooler is not None:
        found.update(dense_parameters(head.pooler, POOLER_LAYER, values))
    if head.norm is not None:
        gamma, beta = (values[entry.node.name] for entry in head.norm.inputs[1:3])
        found.update({f"{HEAD_NORM}_gamma": gamma, f"{HEAD_NORM}_beta": beta})
    return found


def dense_parameters(node: Node, name: str, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return weight and bias of a FullyConnected under the names that begin with `name`; a missing bias is 0."""
    for entry in node.inputs[1:]:
        if not entry.node.is_variable:
            raise ModelError(f"node {node.name} ({node.op}): its parameter is computed by {entry.node.name}")
    weight = values[node.inputs[1].node.name]
    bias = values[node.inputs[2].node.name] if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    return {f"{name}_weight": weight, f"{name}_bias": bias}
