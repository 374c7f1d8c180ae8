"""Take the dev rows from the training file."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

import numpy as np

from bertsym.errors import DataError
from bertsym.tasks.task import Examples, Task


def split_examples(examples: Examples, task: Task, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split the examples of a file into train and dev, both in the order of the file.

    The dev rows are `fraction` of the rows of each label, drawn from `seed`. Examples without a single label are drawn
    as one label, and those that give away each other's answers together. Every label stays in train. Raises DataError
    for a file with too few rows.
    """
    groups: dict[str, dict[Hashable, list[int]]] = {}
    for i, row in enumerate(examples.rows):
        group = groups.setdefault(row.target if isinstance(row.target, str) else "", {})
        group.setdefault(task.together(row), []).append(i)
    rng, chosen = np.random.default_rng(seed), set()
    for label in sorted(groups):
        units = [*groups[label].values()]
        count, drawn = round(fraction * sum(map(len, units))), 0
        for unit in rng.permutation(len(units))[: len(units) - 1]:
            if drawn >= count:
                break
            chosen.update(units[unit])
            drawn += len(units[unit])
    labels = [set(task.labels_of(row)) for row in examples.rows]
    trained = {label for i, each in enumerate(labels) if i not in chosen for label in each}
    for i in sorted(chosen):
        if not labels[i] <= trained:
            chosen.remove(i)
            trained |= labels[i]
    if not chosen:
        raise DataError(f"{examples.name}: {len(examples)} rows are too few for a dev_fraction of {fraction}")
    train = [row for i, row in enumerate(examples.rows) if i not in chosen]
    dev = [row for i, row in enumerate(examples.rows) if i in chosen]
    return (
        dataclasses.replace(examples, rows=train),
        dataclasses.replace(examples, name=f"{examples.name}, dev rows", rows=dev, left_out=0, dropped={}),
    )
