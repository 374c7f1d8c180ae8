"""The base of forms that only run inference on this CPU, with parameters computed from those of the other forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.encoders.folding import PARTS, interleave_heads
from bertsym.encoders.forms import Form
from bertsym.encoders.graph.fast import FastEncoder
from bertsym.encoders.parameters import own_layers, shared_name
from bertsym.encoders.spec import EncoderSpec
from bertsym.symbol.recorder import sym


class InferenceEncoder(FastEncoder):
    """The base of the forms for inference: no dropout."""

    def __init__(self, spec: EncoderSpec, form: Form) -> None:
        # Dropout copies its input even at inference.
        config = dataclasses.replace(spec.config, dropout=0.0, attention_dropout=0.0)
        super().__init__(dataclasses.replace(spec, config=config), form)
        self._computed: dict[str, Any] = {}

    def computed(self, name: str) -> Any:
        """The variable of a parameter that `inference_parameters` computes; layers that share theirs share it too."""
        own = _derived(shared_name(name) if self.config.shares_layers else name)
        if own not in self._computed:
            self._computed[own] = sym.var(own)
        return self._computed[own]


def inference_parameters(spec: EncoderSpec, params: Mapping[str, Array], wanted: Container[str]) -> dict[str, Array]:
    """Compute the `wanted` float32 arrays that a form for inference reads instead of `params`.

    They are views of `params` in other shapes, except those that are concatenated or scaled.
    """
    config, wanted_arrays = spec.config, {}
    heads, scale = config.num_heads, np.float32(1 / np.sqrt(config.units // config.num_heads))
    for i in range(own_layers(config)):
        prefix = f"bertencoder0_transformer{i}_"
        cell = f"{prefix}dotproductselfattentioncell0_"
        made = {}
        biases = [params[spec.name(f"{cell}{part}_bias")] for part in PARTS]
        if spec.concatenated_biases:
            biases = list(np.concatenate(biases).reshape(heads, 3, -1).swapaxes(0, 1).reshape(3, -1))
        weights = [params[spec.name(f"{cell}{part}_weight")] for part in PARTS]
        if _derived(f"{prefix}key_by_head") in wanted:
            made[f"{prefix}key_by_head"] = (weights[1] * scale).reshape(heads, -1, config.units)
            made[f"{prefix}value_by_head"] = weights[2].reshape(heads, -1, config.units)
        for parts in (PARTS, PARTS[1:]):
            name, start = f"{prefix}{'_'.join(parts)}", -len(parts)
            if _derived(f"{name}_bias") in wanted:
                # MXNet scales the product itself.
                weight, bias = (interleave_heads(arrays[start:], heads) for arrays in (weights, biases))
                made.update({f"{name}_weight": weight, f"{name}_pixel_weight": weight[:, :, None, None]})
                made[f"{name}_bias"] = bias
        for name in (f"{prefix}proj", f"{prefix}positionwiseffn0_ffn_1", f"{prefix}positionwiseffn0_ffn_2"):
            made[f"{name}_pixel_weight"] = params[spec.name(f"{name}_weight")][:, :, None, None]
            made[f"{name}_bias"] = params[spec.name(f"{name}_bias")]
        wanted_arrays.update({_derived(name): array for name, array in made.items() if _derived(name) in wanted})
    return wanted_arrays


def _derived(name: str) -> str:
    return f"{name}: for inference"  # no parameter of a file has such a name
