"""Weights of classes in the loss of a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Union

from bertsym.errors import DataError, UsageError

BALANCED = "balanced"
ClassWeights = Union[str, Mapping[str, float], None]


def parse_class_weights(text: str) -> ClassWeights:
    """Parse ``balanced`` or ``LABEL=WEIGHT,LABEL=WEIGHT``; raises UsageError."""
    if text == BALANCED:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        label, equals, number = part.rpartition("=")
        try:
            value: float | None = float(number)
        except ValueError:
            value = None
        if value is None or not (equals and label):
            raise UsageError(f"class weights {text!r}: {part!r} is not LABEL=WEIGHT; give {BALANCED}, or a=1,b=5")
        if label in weights:
            raise UsageError(f"class weights {text!r}: the label {label!r} occurs twice")
        weights[label] = value
    check_class_weights(weights)
    return weights


def check_class_weights(weights: ClassWeights) -> None:
    """Raise UsageError unless the weights are ``balanced``, or finite numbers above 0 by label."""
    if isinstance(weights, str) and weights != BALANCED:
        raise UsageError(f"class weights {weights!r} are neither {BALANCED} nor weights by label")
    for label, weight in weights.items() if isinstance(weights, Mapping) else ():
        if not 0 < weight < math.inf:
            raise UsageError(f"class weights: {label}={weight} is not a finite number above 0")


def resolve_class_weights(weights: ClassWeights, counts: Mapping[str, int], table: str) -> dict[str, float]:
    """Return the weight of each label of a training table, given the numbers of its rows; empty without weights.

    ``balanced`` is scikit-learn's formula: rows / (labels * rows with the label). Labels that are not named have the
    weight 1. Raises DataError for a label that the table does not have.
    """
    if weights is None:
        return {}
    if isinstance(weights, str):
        rows, present = sum(counts.values()), sum(count > 0 for count in counts.values())
        return {label: rows / (present * count) if count else 1.0 for label, count in counts.items()}
    for label in weights:
        if label not in counts:
            raise DataError(f"{table}: class weights: {label!r} is not one of its labels {', '.join(sorted(counts))}")
    return {label: weights.get(label, 1.0) for label in counts}
