"""Weight names of GluonNLP, as tables."""

from __future__ import annotations

from bertsym.families import TASK_HEAD, NameTable, names_in_order

_STRUCTURED = names_in_order(
    "word_embed.0.weight",
    "token_type_embed.0.weight",
    "encoder.position_weight",
    "encoder.layer_norm.gamma",
    "encoder.layer_norm.beta",
    "encoder.transformer_cells.{i}.attention_cell.proj_query.weight",
    "encoder.transformer_cells.{i}.attention_cell.proj_query.bias",
    "encoder.transformer_cells.{i}.attention_cell.proj_key.weight",
    "encoder.transformer_cells.{i}.attention_cell.proj_key.bias",
    "encoder.transformer_cells.{i}.attention_cell.proj_value.weight",
    "encoder.transformer_cells.{i}.attention_cell.proj_value.bias",
    "encoder.transformer_cells.{i}.proj.weight",
    "encoder.transformer_cells.{i}.proj.bias",
    "encoder.transformer_cells.{i}.layer_norm.gamma",
    "encoder.transformer_cells.{i}.layer_norm.beta",
    "encoder.transformer_cells.{i}.ffn.ffn_1.weight",
    "encoder.transformer_cells.{i}.ffn.ffn_1.bias",
    "encoder.transformer_cells.{i}.ffn.ffn_2.weight",
    "encoder.transformer_cells.{i}.ffn.ffn_2.bias",
    "encoder.transformer_cells.{i}.ffn.layer_norm.gamma",
    "encoder.transformer_cells.{i}.ffn.layer_norm.beta",
    "pooler.weight",
    "pooler.bias",
)
_GLUONNLP_HEADS = {
    r"decoder\..*|bertmodel0_(decoder|dense0|layernorm0)_.*|bertmodel0_word_embed_embedding0_bias": (
        "masked language model head"
    ),
    r"classifier\.(weight|bias)|bertmodel0_cls_.*": "next sentence head",
    r"(classifier|regression|span_classifier)\.\d+\..*|(span|tag)_classifier\..*|bert\w*0_(hybridsequential0_)?dense0_.*"
    r"|fc-finetune_(weight|bias)": TASK_HEAD,
}

GLUONNLP_STRUCTURED = NameTable(
    "GluonNLP save_parameters",
    _STRUCTURED,
    ignored=_GLUONNLP_HEADS,
    # The classifier inside a BERTModel is the next sentence head; a classifier beside a BERTModel is not.
    ignored_beside={r"classifier\..*": TASK_HEAD},
)
GLUONNLP_EXPORT = NameTable(
    "GluonNLP export",
    {name: name for name in _STRUCTURED},
    # Counters of further models in a process, and the class names of GluonNLP 0.6 to 0.8.
    spellings=(
        (r"^(?:static)?(bert\w*?)\d+_", r"\g<1>0_"),
        (r"(multiheadattentioncell|bertselfattentioncell)\d+_", "dotproductselfattentioncell0_"),
        (r"bertpositionwiseffn\d+_", "positionwiseffn0_"),
        (r"bertlayernorm\d+_", "layernorm0_"),
    ),
    ignored=_GLUONNLP_HEADS,
)
