"""The parameters of a BERT encoder: GluonNLP's names with fixed prefixes, and their shapes."""

from __future__ import annotations

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM
from bertsym.encoders.config import BertConfig

Shape = tuple[int, ...]

# Names as a GluonNLP 0.10 export writes them for the first model of a process. "{i}" is the layer;
# shapes are fields of BertConfig.
TOKEN_EMBEDDING = "bertmodel0_word_embed_embedding0_weight"
EMBEDDINGS = {
    TOKEN_EMBEDDING: ("vocab_size", "units"),
    "bertmodel0_token_type_embed_embedding0_weight": ("token_type_vocab_size", "units"),
    "bertencoder0_position_weight": ("max_length", "units"),
    "bertencoder0_layernorm0_gamma": ("units",),
    "bertencoder0_layernorm0_beta": ("units",),
}
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
    """Return name -> shape of every parameter of the encoder (and the pooler), in the order of the graph."""

    def shape(fields: tuple[str, ...]) -> Shape:
        return tuple(getattr(config, field) for field in fields)

    shapes = {name: shape(fields) for name, fields in EMBEDDINGS.items()}
    for i in range(config.num_layers):
        shapes.update({name.format(i=i): shape(fields) for name, fields in LAYER.items()})
    if pooler:
        shapes.update({name: shape(fields) for name, fields in POOLER.items()})
    return shapes


def head_shapes(task: str, num_outputs: int, units: int, width: int) -> dict[str, Shape]:
    """Name -> shape of the parameters of a trained head, whose last layer reads `width` elements.

    That of masked language modelling has a layer and a LayerNorm before the last one, whose weight is TOKEN_EMBEDDING.
    """
    bias: dict[str, Shape] = {f"{FULLY_CONNECTED}_bias": (num_outputs,)}
    if task != "masked_lm":
        return {f"{FULLY_CONNECTED}_weight": (num_outputs, width), **bias}
    return {
        f"{HEAD_TRANSFORM}_weight": (units, units),
        f"{HEAD_TRANSFORM}_bias": (units,),
        f"{HEAD_NORM}_gamma": (units,),
        f"{HEAD_NORM}_beta": (units,),
        **bias,
    }
