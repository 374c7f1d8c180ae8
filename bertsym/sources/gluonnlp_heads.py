"""Trained heads of GluonNLP's ``.params`` files, by the names of their weights.

Source: BERTClassifier of gluonnlp 0.9 and 0.10; BERTClassifier, BERTRegression, BertForQA and BERTTagger of
scripts/bert in the releases 0.6 to 0.10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.encoders.catalogue import FULLY_CONNECTED, TRAINED_HEADS
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import head_shapes
from bertsym.errors import ModelError, UsageError
from bertsym.families import list_names, printable
from bertsym.sources.mapping import WeightNames, check_weight
from bertsym.sources.pretrained import TrainedHead
from bertsym.symbol.params import LazyParameters
from bertsym.text.labels import match_class_names

_DROPOUT = 0.1  # of the scripts that fine-tune; a file does not have it


@dataclass(frozen=True)
class _HeadNames:
    """The names of a head's only dense layer, without ``.weight`` and ``_weight``."""

    architecture: str
    task: str
    reads: str  #: a key of ``encoders.catalogue.OUTPUTS``
    pattern: str


_HEADS = (
    _HeadNames("BERTClassifier", "classification", "pooled", r"classifier\.[01]|bertclassifier0_.*dense0"),
    _HeadNames("BERTRegression", "regression", "pooled", r"regression\.[01]|bertregression0_.*dense0"),
    _HeadNames("BertForQA", "qa", "sequence", r"span_classifier|bertforqa0_dense0"),
    _HeadNames("BERTTagger", "tagging", "sequence", r"tag_classifier|berttagger0_dense0"),
)


def read_gluonnlp_head(
    names: WeightNames, weights: Mapping[str, Array], config: BertConfig, labels: tuple[str, ...] | None
) -> tuple[TrainedHead | None, WeightNames]:
    """Read the trained head of a file: the head, and the names of the weights without those of the head.

    The head is None where the file has no weights of one. `labels` are the class names. Raises ModelError, with the
    option that exports the encoder alone, for a head that a bundle can't express, and UsageError for missing labels and
    for labels of another number.
    """
    found = names.heads
    if not found:
        if labels is not None:
            raise UsageError(f"{names.where}: has no head whose outputs --labels could name: omit --labels")
        return None, names
    listed = list_names(found.values())
    stems = {re.sub(r"[._](weight|bias)$", "", name) for name in found}
    head = next((head for head in _HEADS if len(stems) == 1 and re.fullmatch(head.pattern, next(iter(stems)))), None)
    if head is None or len(found) != 2:
        known = ", ".join(head.architecture for head in _HEADS)
        raise ModelError(
            f"{names.where}: the head ({listed}) is not that of {known}; --headless exports the encoder alone, and "
            "bertsym lower takes the head from a symbol"
        )
    if head.reads == "pooled" and not names.has_pooler:
        raise ModelError(
            f"{names.where}: {head.architecture} ({listed}) reads a pooler, which is missing; --headless exports "
            "the encoder alone"
        )
    weight, bias = sorted(found.values(), key=lambda name: name.endswith("bias"))
    num_outputs = len(weights[weight])
    task = "regression" if head.task == "classification" and num_outputs == 1 else head.task
    shapes = head_shapes(config, task, num_outputs)
    params = dict(zip((f"{FULLY_CONNECTED}_weight", f"{FULLY_CONNECTED}_bias"), (weight, bias)))
    for ours, name in params.items():
        check_weight(weights[name], shapes[ours], f"{names.where}: {printable(name)}")
    if num_outputs != {"qa": 2, "regression": 1}.get(task, num_outputs):
        raise ModelError(
            f"{names.where}: {head.architecture} with {num_outputs} outputs; --headless exports the encoder alone"
        )
    try:
        class_names = match_class_names(labels, task, num_outputs, has_classes=TRAINED_HEADS[task] == "classifier")
    except UsageError as error:
        raise UsageError(f"{names.where}: {error}; --headless exports the encoder alone") from None
    # With dropout, the dense layer is the second of gluon's HybridSequential.
    dropout = 0.0 if re.search(r"\.0\.", weight) else _DROPOUT
    read = LazyParameters(
        {ours: shapes[ours] for ours in params}, lambda ours: weights[params[ours]].astype(np.float32, copy=False)
    )
    kept = TrainedHead(head.architecture, task, head.reads, num_outputs, class_names, dropout, read)
    return kept, names.without(params.values())
