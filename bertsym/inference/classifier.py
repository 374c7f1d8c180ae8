"""Opening a bundle that must be a classifier."""

from __future__ import annotations

from pathlib import Path

from bertsym.bundle import Bundle
from bertsym.errors import ModelError, UsageError
from bertsym.signature import Signature
from bertsym.text.tables import TableFormat


def open_classifier(prefix: str | Path) -> Bundle:
    """Open a bundle; raises ModelError unless it ends in a trained classifier."""
    bundle = Bundle.open(prefix)
    if bundle.signature.kind == "encoder":
        raise ModelError(
            f"{bundle.prefix}: has no classifier, it ends in {bundle.signature.output_name}; "
            "fine-tune it first with bertsym finetune"
        )
    if bundle.signature.kind != "classifier":
        raise ModelError(f"{bundle.prefix}: its {bundle.signature.task} head was never trained")
    if not bundle.signature.trained:
        raise ModelError(f"{bundle.prefix}: its classifier was grafted and never trained")
    return bundle


def as_trained(signature: Signature, table_format: TableFormat) -> TableFormat:
    """A format whose header and columns are those of the training tables where they are not given."""
    header = signature.header if table_format.header is None else table_format.header
    return TableFormat(table_format.kind, header, table_format.columns.or_else(signature.columns))


def check_pair(signature: Signature, has_pair: bool) -> None:
    """Raise UsageError if the inputs are pairs and the classifier's are known not to be, or the other way round."""
    if has_pair and signature.pair is False:
        raise UsageError("this classifier was trained on single texts: no second text")
    if not has_pair and signature.pair:
        raise UsageError("this classifier was trained on pairs of texts: give the second text too")
