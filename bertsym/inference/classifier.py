"""Opening a bundle that must be a classifier."""

from __future__ import annotations

from pathlib import Path

from bertsym.bundle import Bundle
from bertsym.errors import ModelError
from bertsym.text.tasks import Columns


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
    return bundle


def wanted_columns(bundle: Bundle, given: Columns) -> Columns:
    """The given columns, and those of the training table for the ones that were not given."""
    trained = bundle.signature.columns
    return Columns(given.text or trained.text, given.pair or trained.pair, given.label or trained.label)
