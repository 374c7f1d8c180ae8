"""The product's numpy reference, as tests call it: with Hugging Face's weights and config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bertsym.reference import Checkpoint, Inputs, encoder_outputs
from bertsym.reference import Encodings as Outputs

__all__ = ["Outputs", "bert_forward"]


def bert_forward(
    weights: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    token_ids: NDArray[Any],
    token_types: NDArray[Any],
    valid_length: NDArray[Any],
) -> Outputs:
    """All outputs for token ids (N, T), token types (N, T) and the number of tokens before the padding (N,)."""
    inputs = Inputs(token_ids, token_types, valid_length)
    return encoder_outputs("bert", Checkpoint("Hugging Face", weights, config), [inputs])[0]
