"""The parameters of an encoder: GluonNLP's names with fixed prefixes, and their shapes."""

from __future__ import annotations

import re

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM
from bertsym.encoders.config import BertConfig

Shape = tuple[int, ...]

# Names as a GluonNLP 0.10 export writes them for the first model of a process. "{i}" is the layer;
# shapes are attributes of BertConfig.
TOKEN_EMBEDDING = "bertmodel0_word_embed_embedding0_weight"
TOKEN_TYPES = "bertmodel0_token_type_embed_embedding0_weight"  #: only with a segment table
POSITIONS = "bertencoder0_position_weight"
EMBEDDINGS = {
    TOKEN_EMBEDDING: ("vocab_size", "embedding_width"),
    TOKEN_TYPES: ("token_type_vocab_size", "embedding_width"),
    POSITIONS: ("position_rows", "embedding_width"),
    "bertencoder0_layernorm0_gamma": ("embedding_width",),
    "bertencoder0_layernorm0_beta": ("embedding_width",),
}
EMBED_PROJECTION = "bertencoder0_embed_projection"
#: the layer that projects the normalised embeddings to `units`, where they have another size
PROJECTION = {
    f"{EMBED_PROJECTION}_weight": ("units", "embedding_width"),
    f"{EMBED_PROJECTION}_bias": ("units",),
}
#: biases that attention adds to its scores, by bucket of the relative position and by head; the same in all layers
RELATIVE_BIAS = "bertencoder0_relative_attention_bias_weight"
#: bucket of each pair of positions, query and key: a constant, which no training may change
RELATIVE_BUCKETS = "bertencoder0_relative_position_buckets"
RELATIVE_POSITIONS = {RELATIVE_BIAS: ("relative_buckets", "num_heads"), RELATIVE_BUCKETS: ("max_length", "max_length")}
LAYER = {
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_query_weight": ("units", "units"),
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_query_bias": ("units",),
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_key_weight": ("units", "units"),
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_key_bias": ("units",),
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_value_weight": ("units", "units"),
    "bertencoder0_transformer{i}_dotproductselfattentioncell0_value_bias": ("units",),
    "bertencoder0_transformer{i}_proj_weight": ("units", "units"),
    "bertencoder0_transformer{i}_proj_bias": ("units",),
    "bertencoder0_transformer{i}_layernorm0_gamma": ("units",),
    "bertencoder0_transformer{i}_layernorm0_beta": ("units",),
    "bertencoder0_transformer{i}_positionwiseffn0_ffn_1_weight": ("hidden_size", "units"),
    "bertencoder0_transformer{i}_positionwiseffn0_ffn_1_bias": ("hidden_size",),
    "bertencoder0_transformer{i}_positionwiseffn0_ffn_2_weight": ("units", "hidden_size"),
    "bertencoder0_transformer{i}_positionwiseffn0_ffn_2_bias": ("units",),
    "bertencoder0_transformer{i}_positionwiseffn0_layernorm0_gamma": ("units",),
    "bertencoder0_transformer{i}_positionwiseffn0_layernorm0_beta": ("units",),
}
POOLER = {
    "bertmodel0_pooler_weight": ("units", "units"),
    "bertmodel0_pooler_bias": ("units",),
}


def expand(template: str, num_layers: int) -> list[str]:
    """Expand a template to names: one name, or one for each layer when it contains ``{i}``."""
    return [template.format(i=i) for i in range(num_layers)] if "{i}" in template else [template]


def parameter_shapes(config: BertConfig, pooler: bool = True) -> dict[str, Shape]:
    """Return name -> shape of every parameter of the encoder (and the pooler), in the order of the graph.

    Layers that share their parameters have those of layer 0.
    """
    templates = {
        name: fields for name, fields in EMBEDDINGS.items() if name != TOKEN_TYPES or config.token_type_vocab_size
    }
    if config.embedding_size is not None:
        templates.update(PROJECTION)
    if config.relative_buckets:
        templates.update(RELATIVE_POSITIONS)
    for i in range(own_layers(config)):
        templates.update({name.format(i=i): fields for name, fields in LAYER.items()})
    if pooler:
        templates.update(POOLER)
    return {name: tuple(getattr(config, field) for field in fields) for name, fields in templates.items()}


def own_layers(config: BertConfig) -> int:
    """The number of layers with parameters of their own."""
    return 1 if config.shares_layers else config.num_layers


def shared_name(parameter: str) -> str:
    """The parameter of layer 0 that a layer's parameter is where all layers share theirs."""
    return re.sub(r"_transformer\d+_", "_transformer0_", parameter)


def head_shapes(
    config: BertConfig, task: str, num_outputs: int, *, width: int | None = None, has_transform: bool = False
) -> dict[str, Shape]:
    """Name -> shape of the parameters of a trained head, whose last layer reads `width` elements, by default the units.

    That of masked language modelling has a layer and a LayerNorm before the last one, whose weight is TOKEN_EMBEDDING;
    other heads may have such a layer without a LayerNorm.
    """
    bias: dict[str, Shape] = {f"{FULLY_CONNECTED}_bias": (num_outputs,)}
    inner = config.embedding_width if task == "masked_lm" else config.units
    transform: dict[str, Shape] = {
        f"{HEAD_TRANSFORM}_weight": (inner, config.units),
        f"{HEAD_TRANSFORM}_bias": (inner,),
    }
    if task != "masked_lm":
        last = {f"{FULLY_CONNECTED}_weight": (num_outputs, config.units if width is None else width), **bias}
        return {**transform, **last} if has_transform else last
    return {**transform, f"{HEAD_NORM}_gamma": (inner,), f"{HEAD_NORM}_beta": (inner,), **bias}
