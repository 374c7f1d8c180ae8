"""Opening a classifier, and the settings of its training that inference needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bertsym.analysis.encoder_detection import require_encoder
from bertsym.bundle import SYMBOL, Bundle
from bertsym.datasets.registry import DATASETS, DataSet
from bertsym.errors import ModelError, UsageError
from bertsym.signature import Signature
from bertsym.symbol.params import shapes_of
from bertsym.text.tables import Layout, TableFormat


def open_classifier(prefix: str | Path, command: str) -> Bundle:
    """Open a bundle for `command`; raises ModelError unless it ends in a trained classifier of one label for a text."""
    bundle = Bundle.open(prefix)
    if bundle.signature.kind == "encoder":
        raise ModelError(
            f"{bundle.prefix}: has no classifier, it ends in {bundle.signature.output_name}; "
            "fine-tune it first with bertsym finetune"
        )
    if not bundle.signature.trained:
        raise ModelError(
            f"{bundle.prefix}: untrained head: train it with MXNet and insert its parameters with bertsym edit "
            "--params, or remove it with bertsym graft --head none and use bertsym finetune"
        )
    if not bundle.signature.is_single_label:
        raise ModelError(f"{bundle.prefix}: task {bundle.signature.task}: not supported by {command} yet")
    try:
        require_encoder(bundle.graph(), shapes_of(bundle.params()))
    except ModelError as error:
        # Batches are padded, and only an encoder is known to ignore padding.
        raise ModelError(f"{bundle.path(SYMBOL)}: {error}; {command} needs a BERT encoder") from None
    return bundle


def find_task(bundle: Bundle, name: str | None = None) -> DataSet:
    """Return the entry of DATASETS with this name, or by default that of the classifier's training.

    Raises UsageError for a name that is not in DATASETS, and ModelError for a bundle whose task is not.
    """
    if name is not None and name not in DATASETS:
        raise UsageError(f"task {name!r} is not one of {', '.join(DATASETS)}")
    name = name or bundle.signature.dataset or bundle.signature.task or ""
    if name not in DATASETS:
        raise ModelError(
            f"{bundle.prefix}: the model's task {name!r} is not one of {', '.join(DATASETS)}: choose one with --task"
        )
    return DATASETS[name]


def complete_table_format(signature: Signature, table_format: TableFormat) -> TableFormat:
    """Complete a table format: by default header, columns and dropped labels are those of the training table."""
    return dataclasses.replace(
        table_format,
        drop_labels=(*table_format.drop_labels, *signature.dropped_labels),
        trained=Layout(signature.columns, signature.header, signature.column_names),
    )


def check_pair(signature: Signature, has_pair: bool) -> None:
    """Raise UsageError for pairs if the classifier was trained on single texts, and vice versa."""
    if has_pair and signature.pair is False:
        raise UsageError("this classifier was trained on single texts: omit the second text")
    if not has_pair and signature.pair:
        raise UsageError("this classifier was trained on text pairs: give the second text too")
