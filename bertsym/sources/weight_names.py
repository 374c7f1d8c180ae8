"""Weight names of other libraries, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bertsym.encoders.parameters import EMBEDDINGS, LAYER, POOLER

TASK_HEAD, PRETRAINING_HEADS = "task head", "pretraining heads"  #: purposes of weights beside the encoder


@dataclass(frozen=True)
class NameTable:
    """How another library names BERT's weights.

    ``names``: our template -> their template, with ``{i}`` for the layer. ``spellings``: (pattern, replacement) pairs
    that turn older names into the names of the table. ``ignored``: patterns of names outside the encoder, each with its
    purpose. ``ignored_beside``: the same for names without the encoder's prefix; these are looked up first.
    """

    library: str
    names: Mapping[str, str]
    spellings: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    ignored_beside: Mapping[str, str] = field(default_factory=dict)

    def spell(self, name: str) -> str:
        """Convert an older name to the name in the table."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name


_TEMPLATES = (*EMBEDDINGS, *LAYER, *POOLER)


def _in_order(*names: str) -> dict[str, str]:
    return dict(zip(_TEMPLATES, names))


HUGGING_FACE = NameTable(
    "Hugging Face",
    _in_order(
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.position_embeddings.weight",
        "embeddings.LayerNorm.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.{i}.attention.self.query.weight",
        "encoder.layer.{i}.attention.self.query.bias",
        "encoder.layer.{i}.attention.self.key.weight",
        "encoder.layer.{i}.attention.self.key.bias",
        "encoder.layer.{i}.attention.self.value.weight",
        "encoder.layer.{i}.attention.self.value.bias",
        "encoder.layer.{i}.attention.output.dense.weight",
        "encoder.layer.{i}.attention.output.dense.bias",
        "encoder.layer.{i}.attention.output.LayerNorm.weight",
        "encoder.layer.{i}.attention.output.LayerNorm.bias",
        "encoder.layer.{i}.intermediate.dense.weight",
        "encoder.layer.{i}.intermediate.dense.bias",
        "encoder.layer.{i}.output.dense.weight",
        "encoder.layer.{i}.output.dense.bias",
        "encoder.layer.{i}.output.LayerNorm.weight",
        "encoder.layer.{i}.output.LayerNorm.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ),
    # Checkpoints converted from TensorFlow keep its names for LayerNorm.
    spellings=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    ignored={
        r"embeddings\.(position_ids|token_type_ids)": "constant",
        r"cls\..*": PRETRAINING_HEADS,
        r"(classifier|qa_outputs|score)\..*": TASK_HEAD,
    },
)

_STRUCTURED = _in_order(
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
    r"(classifier|regression|span_classifier)\.\d+\..*|span_classifier\..*|bert\w*0_(hybridsequential0_)?dense0_.*"
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
    {name: name for name in _TEMPLATES},
    # Counters of further models in a process, and the class names of GluonNLP 0.6 to 0.8.
    spellings=(
        (r"^(?:static)?(bert\w*?)\d+_", r"\g<1>0_"),
        (r"(multiheadattentioncell|bertselfattentioncell)\d+_", "dotproductselfattentioncell0_"),
        (r"bertpositionwiseffn\d+_", "positionwiseffn0_"),
        (r"bertlayernorm\d+_", "layernorm0_"),
    ),
    ignored=_GLUONNLP_HEADS,
)


def printable(name: str) -> str:
    """Quote a name from a file when it would corrupt a line or a terminal."""
    return name if name.isprintable() else repr(name)


def list_names(names: Iterable[str]) -> str:
    """List the first eight names and the number of the others."""
    names = [printable(name) for name in names]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
