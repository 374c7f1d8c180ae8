"""Open a bundle with the class of its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertsym.bundle import Bundle, open_any
from bertsym.inference.embed import Encoder
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.predict import (
    Classifier,
    MaskFiller,
    MultilabelClassifier,
    QuestionAnswerer,
    Regressor,
    Tagger,
    TaskPredictor,
)

#: task of a head, a key of ``tasks.TASKS`` -> class that predicts it
PREDICTORS: dict[str, type[TaskPredictor[Any]]] = {
    "classification": Classifier,
    "masked_lm": MaskFiller,
    "qa": QuestionAnswerer,
    "multilabel": MultilabelClassifier,
    "regression": Regressor,
    "tagging": Tagger,
}


def load(prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE) -> TaskPredictor[Any] | Encoder:
    """Open a bundle for inference: an `Encoder` without a head, otherwise the class of the head's task.

    Raises the errors of that class.
    """
    bundle = open_any(prefix, digests=False)  # the class compares them
    if isinstance(bundle, Bundle) and not bundle.has_head:
        return Encoder(prefix, device=device, batch_size=batch_size)
    task = bundle.signature.task if isinstance(bundle, Bundle) else None
    return PREDICTORS.get(task or "", TaskPredictor)(prefix, device, batch_size)
