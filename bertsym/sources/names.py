"""Weight names of other libraries as tables, and the mapping that leaves no name unexplained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bertsym.bert.config import BertConfig
from bertsym.bert.parameters import EMBEDDINGS, LAYER, POOLER, expand, parameter_shapes
from bertsym.errors import ModelError
from bertsym.symbol.params import Array, LazyParameters


@dataclass(frozen=True)
class NameTable:
    """How another library names BERT's weights.

    ``names``: our template -> their template, ``{i}`` being the layer. ``prefixes`` may precede every name.
    ``spellings``: (pattern, replacement) pairs that turn older names into the table's. ``ignored``:
    patterns of names that are not part of the encoder, each with what it is.
    """

    library: str
    names: Mapping[str, str]
    prefixes: tuple[str, ...] = ()
    spellings: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)

    def normalise(self, name: str) -> str:
        """A name as the table spells it."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name

    def purpose_if_ignored(self, name: str) -> str | None:
        """What a name is that we leave out, or None."""
        return next((why for pattern, why in self.ignored.items() if re.fullmatch(pattern, name)), None)


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
    prefixes=("bert.",),
    # Checkpoints converted from TensorFlow keep its names for LayerNorm.
    spellings=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    ignored={
        r"embeddings\.(position_ids|token_type_ids)": "constant",
        r"cls\..*": "pretraining heads",
        r"(classifier|qa_outputs)\..*": "task head",
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
    r"(classifier|span_classifier)\.\d+\..*|span_classifier\..*|bert\w*0_(hybridsequential0_)?dense0_.*": "task head",
}

GLUONNLP_STRUCTURED = NameTable("GluonNLP save_parameters", _STRUCTURED, prefixes=("bert.",), ignored=_GLUONNLP_HEADS)
GLUONNLP_EXPORT = NameTable(
    "GluonNLP export",
    {name: name for name in _TEMPLATES},
    # Counters of the second, third ... model of a process, and the class names of 0.6 to 0.8.
    spellings=(
        (r"^(?:static)?(bert\w*?)\d+_", r"\g<1>0_"),
        (r"(multiheadattentioncell|bertselfattentioncell)\d+_", "dotproductselfattentioncell0_"),
        (r"bertpositionwiseffn\d+_", "positionwiseffn0_"),
        (r"bertlayernorm\d+_", "layernorm0_"),
    ),
    ignored=_GLUONNLP_HEADS,
)


def map_weights(
    weights: Mapping[str, Array], table: NameTable, config: BertConfig, where: str
) -> tuple[LazyParameters, dict[str, str]]:
    """The weights under our names in the order of the graph, and the ignored names with their purpose.

    All are checked one by one, and read again from `weights` when they are asked for: no more than one is held.

    Both ways complete: every parameter is filled exactly once (the pooler may be absent as a whole), every
    name is used or ignored on purpose. Raises ModelError with the names otherwise, and for a wrong shape,
    a dtype that isn't floating point, or values that are not finite.
    """
    targets = {
        theirs: ours
        for template, their_template in table.names.items()
        for ours, theirs in zip(expand(template, config.num_layers), expand(their_template, config.num_layers))
    }
    sources: dict[str, str] = {}
    ignored: dict[str, str] = {}
    unknown: list[str] = []
    for name in weights:
        theirs = table.normalise(name)
        purpose = table.purpose_if_ignored(theirs)
        if theirs in targets:
            ours = targets[theirs]
            if ours in sources:
                raise ModelError(f"{where}: {printable(sources[ours])} and {printable(name)} are both {theirs}")
            sources[ours] = name
        elif purpose is not None:
            ignored[name] = purpose
        else:
            unknown.append(name)
    missing = [theirs for theirs, ours in targets.items() if ours not in sources]
    pooler = {table.names[name] for name in POOLER}
    if pooler <= set(missing):
        missing = [name for name in missing if name not in pooler]
    if missing or unknown:
        raise ModelError(
            f"{where}: not the weights of this BERT:{_listing('missing', missing)}{_listing('unknown', unknown)}"
        )
    shapes = {ours: shape for ours, shape in parameter_shapes(config).items() if ours in sources}
    for ours, shape in shapes.items():
        _check(weights[sources[ours]], shape, f"{where}: {printable(sources[ours])}")
    return LazyParameters(shapes, lambda ours: weights[sources[ours]].astype(np.float32, copy=False)), ignored


def printable(name: str) -> str:
    """A name out of a file, quoted where it would disturb a line or a terminal."""
    return name if name.isprintable() else repr(name)


def _listing(what: str, names: Iterable[str]) -> str:
    names = [printable(name) for name in sorted(names)]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f" {len(names)} {what} ({', '.join(names[:8])}{more})" if names else ""


def _check(array: Array, shape: tuple[int, ...], where: str) -> None:
    if array.shape != shape:
        raise ModelError(f"{where} has shape {array.shape}, the config implies {shape}")
    if array.dtype.kind != "f":
        raise ModelError(f"{where} is {array.dtype}, a floating point array is needed")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ModelError(f"{where} has values that are not finite")


def describe_ignored(ignored: Mapping[str, str]) -> tuple[str, ...]:
    """One note a purpose, naming the weights that were left out; constants need no word."""
    purposes = sorted(set(ignored.values()) - {"constant"})
    return tuple(
        f"not exported, {purpose}: {', '.join(printable(name) for name, why in ignored.items() if why == purpose)}"
        for purpose in purposes
    )
