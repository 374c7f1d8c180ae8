"""GluonNLP's own BERT models, filled with Hugging Face's weights by the tests' own table of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsym.mxnet_runtime import mx, nlp

# Hugging Face's name -> attribute path in gluonnlp's BERTModel; "#" is the layer.
_PATHS = {
    "embeddings.word_embeddings.weight": "word_embed.0.weight",
    "embeddings.token_type_embeddings.weight": "token_type_embed.0.weight",
    "embeddings.position_embeddings.weight": "encoder.position_weight",
    "embeddings.LayerNorm.weight": "encoder.layer_norm.gamma",
    "embeddings.LayerNorm.bias": "encoder.layer_norm.beta",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
    "encoder.layer.#.attention.self.query.weight": "encoder.transformer_cells.#.attention_cell.query_weight",
    "encoder.layer.#.attention.self.query.bias": "encoder.transformer_cells.#.attention_cell.query_bias",
    "encoder.layer.#.attention.self.key.weight": "encoder.transformer_cells.#.attention_cell.key_weight",
    "encoder.layer.#.attention.self.key.bias": "encoder.transformer_cells.#.attention_cell.key_bias",
    "encoder.layer.#.attention.self.value.weight": "encoder.transformer_cells.#.attention_cell.value_weight",
    "encoder.layer.#.attention.self.value.bias": "encoder.transformer_cells.#.attention_cell.value_bias",
    "encoder.layer.#.attention.output.dense.weight": "encoder.transformer_cells.#.proj.weight",
    "encoder.layer.#.attention.output.dense.bias": "encoder.transformer_cells.#.proj.bias",
    "encoder.layer.#.attention.output.LayerNorm.weight": "encoder.transformer_cells.#.layer_norm.gamma",
    "encoder.layer.#.attention.output.LayerNorm.bias": "encoder.transformer_cells.#.layer_norm.beta",
    "encoder.layer.#.intermediate.dense.weight": "encoder.transformer_cells.#.ffn.ffn_1.weight",
    "encoder.layer.#.intermediate.dense.bias": "encoder.transformer_cells.#.ffn.ffn_1.bias",
    "encoder.layer.#.output.dense.weight": "encoder.transformer_cells.#.ffn.ffn_2.weight",
    "encoder.layer.#.output.dense.bias": "encoder.transformer_cells.#.ffn.ffn_2.bias",
    "encoder.layer.#.output.LayerNorm.weight": "encoder.transformer_cells.#.ffn.layer_norm.gamma",
    "encoder.layer.#.output.LayerNorm.bias": "encoder.transformer_cells.#.ffn.layer_norm.beta",
}


def bert_model(
    config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], heads: bool = False, prefixes: bool = True
) -> Any:
    """A gluonnlp BERTModel without dropout; `heads` adds the pretraining heads, with random weights.

    With `prefixes` the names are those of the first model of a process, otherwise gluon counts.
    """
    encoder = nlp.model.BERTEncoder(
        num_layers=config["num_hidden_layers"],
        units=config["hidden_size"],
        hidden_size=config["intermediate_size"],
        max_length=config["max_position_embeddings"],
        num_heads=config["num_attention_heads"],
        layer_norm_eps=config["layer_norm_eps"],
        prefix="bertencoder0_" if prefixes else None,
    )
    net = nlp.model.BERTModel(
        encoder,
        vocab_size=config["vocab_size"],
        token_type_vocab_size=config["type_vocab_size"],
        units=config["hidden_size"],
        embed_size=config["hidden_size"],
        use_pooler=True,
        use_decoder=heads,
        use_classifier=heads,
        prefix="bertmodel0_" if prefixes else None,
    )
    net.initialize(mx.init.Normal(0.02))
    for name, path in _PATHS.items():
        for i in range(config["num_hidden_layers"]) if "#" in name else [0]:
            parameter = _follow(net, path.replace("#", str(i)))
            parameter.set_data(mx.nd.array(weights[name.replace("#", str(i))].astype(np.float32)))
    # Gluon allocates some of them in the first forward only.
    ones = mx.nd.ones((1, 4))
    net(ones, ones * 0, mx.nd.array([4]), *([mx.nd.array([[1, 2]])] if heads else []))
    return net


def _follow(net: Any, path: str) -> Any:
    for part in path.split("."):
        net = net[int(part)] if part.isdigit() else getattr(net, part)
    return net
