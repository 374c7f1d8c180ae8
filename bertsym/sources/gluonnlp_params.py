"""A GluonNLP ``.params`` file, from save_parameters or from export."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsym.bundle import file_digest
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import EMBEDDINGS, LAYER, TOKEN_TYPES
from bertsym.errors import ModelError, UsageError
from bertsym.families import NameTable
from bertsym.sources.gluonnlp_heads import read_gluonnlp_head
from bertsym.sources.mapping import WeightNames, map_weights, resolve_names
from bertsym.sources.pretrained import Pretrained, TaskHead
from bertsym.sources.tokenizer_files import read_vocabulary_tokenizer
from bertsym.sources.weight_names import GLUONNLP_EXPORT, GLUONNLP_STRUCTURED
from bertsym.symbol.params import ParamsFile

# Shapes do not show the number of heads; it is known for these (layers, units) of GluonNLP's zoo.
_ZOO_HEADS = {(12, 768): 12, (24, 1024): 16}
_LAYER_NORM_EPS = 1e-12  # of every BERT in GluonNLP's zoo


def load_params(
    path: str,
    vocab: str,
    num_heads: int | None = None,
    layer_norm_eps: float | None = None,
    lower_case: bool | None = None,
    pad_vocab: bool = False,
    ignore_weights: Sequence[str] = (),
    sentencepiece: str | None = None,
    labels: tuple[str, ...] | None = None,
    with_head: bool = False,
) -> Pretrained:
    """Read weights from a ``.params`` file; the config comes from the shapes, the heads from `num_heads`.

    `sentencepiece` is the model of GluonNLP's BERTSPTokenizer; without one, the tokenizer is WordPiece. With
    `lower_case` None, the vocabulary decides. With `with_head`, the trained head is read too, and `labels` name its
    classes. Weights that match a glob of `ignore_weights` are left out. Raises
    ModelError, DataError, or UsageError when the number of heads is unknown, and for a glob that matches no weight or
    a weight of the encoder.
    """
    params = ParamsFile(path)
    table = GLUONNLP_STRUCTURED if any("." in name for name in params) else GLUONNLP_EXPORT
    names = resolve_names(params, table, path, ignore_weights)
    config = _infer_config(params, names, num_heads, layer_norm_eps)
    arg_params = map_weights(params, names, config)
    trained = None
    if with_head:
        trained, names = read_gluonnlp_head(names, params, config, labels)
    elif labels is not None:
        raise UsageError("--labels names the classes of the trained head, which is not exported: omit --labels")
    found = read_vocabulary_tokenizer(
        vocab, config.vocab_size, lower_case=lower_case, pad_vocab=pad_vocab, sentencepiece=sentencepiece
    )
    notes = [*names.notes, *found.notes, *_sparse_notes(params)]
    origin = {
        "kind": "params",
        "pretrained": True,
        "names": table.library,
        "files": {Path(name).name: file_digest(Path(name)) for name in (path, vocab, sentencepiece) if name},
        **names.facts,
    }
    head = TaskHead(names.task_head) if names.task_head else None
    checkpoint = names.checkpoint(params, config.to_dict())
    return Pretrained(
        config,
        arg_params,
        found.vocabulary,
        found.options,
        found.document,
        origin,
        checkpoint,
        tuple(notes),
        head,
        trained,
    )


def _sparse_notes(params: ParamsFile) -> list[str]:
    return [f"sparse arrays become dense: {', '.join(params.sparse)}"] if params.sparse else []


def _infer_config(
    params: ParamsFile, names: WeightNames, num_heads: int | None, layer_norm_eps: float | None
) -> BertConfig:
    where, table = names.where, names.table
    shapes = {theirs: params.infos[name].shape for name, theirs in names.spelled.items()}
    dimensions: dict[str, Any] = {}
    for template, fields in {**EMBEDDINGS, **LAYER}.items():
        name = table.names[template].format(i=0)
        shape = shapes.get(name)
        if shape is None and template == TOKEN_TYPES:
            raise ModelError(
                f"{where}: no {name}, as in a RoBERTa or a DistilBERT, which can only be read as a symbol: export the "
                "model with HybridBlock.export, and give the symbol to bertsym lower, with --tokenizer "
                "tokenizer.json and --labels"
            )
        if shape is None or len(shape) != len(fields):
            raise ModelError(f"{where}: not a GluonNLP BERT: no {name} with {len(fields)} dimensions")
        dimensions.update(zip(fields, shape))
    del dimensions["embedding_width"]  # the units, which the layers have too
    layers = _count_layers(shapes, table)
    if num_heads is None:
        num_heads = _ZOO_HEADS.get((layers, dimensions["units"]))
        if num_heads is None:
            raise UsageError(
                f"{where}: {layers} layers of {dimensions['units']} units; the number of attention heads is not in "
                "the file, give --num-heads"
            )
    try:
        return BertConfig(
            num_layers=layers,
            max_length=dimensions.pop("position_rows"),
            num_heads=num_heads,
            layer_norm_eps=_LAYER_NORM_EPS if layer_norm_eps is None else layer_norm_eps,
            **dimensions,
        )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _count_layers(shapes: Mapping[str, object], table: NameTable) -> int:
    first, _, rest = table.names[next(iter(LAYER))].partition("{i}")
    pattern = re.compile(re.escape(first) + r"(\d{1,4})" + re.escape(rest))
    return 1 + max(int(match[1]) for match in map(pattern.fullmatch, shapes) if match)
