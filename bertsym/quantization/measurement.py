"""Measure quality and speed of models on a labelled file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bertsym.bundle import PARAMS, Bundle
from bertsym.events import EventStream
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.tasks.task import Examples, Task

_ROUNDS = 3
_TIMED_ROWS = 512


@dataclass(frozen=True)
class Measured:
    """Measurements of a model on the examples of a file."""

    metrics: dict[str, float]
    agreement: float  #: fraction of the examples with the same answer as the float32 model
    rows_per_second: float
    params_bytes: int
    outputs: list[Any] = field(repr=False)  #: what ``Task.keep`` returned for each window


@dataclass(frozen=True)
class Measurable:
    """A model to measure: its bundle, and what computes its outputs."""

    bundle: Bundle
    predictor: MXNetPredictor


def measure(models: Sequence[Measurable], task: Task, examples: Examples, events: EventStream) -> list[Measured]:
    """Measure models on all examples; speed is the median of three rounds, in turn, on up to 512 examples.

    The first model is the reference for the agreement.
    """
    features = examples.features
    outputs = [
        model.predictor.each(features, task.keep, events.counter("evaluating", len(features), examples.name))
        for model in models
    ]
    sample = examples.sample(_TIMED_ROWS)
    for model in models:
        model.predictor.each(sample.features, task.keep)  # binds its executors
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(_ROUNDS):
        for model, each in zip(models, seconds):
            begin = time.perf_counter()
            model.predictor.each(sample.features, task.keep)
            each.append(time.perf_counter() - begin)
    predictions = [list(task.predictions(found, examples.rows)) for found in outputs]
    return [
        Measured(
            task.evaluate(found, examples),
            float(np.mean([one.agrees(other) for one, other in zip(answers, predictions[0])])),
            len(sample) / float(np.median(each)),
            model.bundle.manifest["files"][PARAMS]["size"],
            found,
        )
        for model, found, answers, each in zip(models, outputs, predictions, seconds)
    ]
