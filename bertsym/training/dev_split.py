"""Take the dev rows from the training file."""

from __future__ import annotations

import dataclasses

import numpy as np

from bertsym.errors import DataError
from bertsym.tasks.task import Examples


def split_examples(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split the examples of a file into train and dev, both in the order of the file.

    The dev rows are `fraction` of the rows of each label, drawn from `seed`; at least one row of each label stays in
    train. Examples whose targets are not labels are drawn together. Raises DataError for a file with too few rows.
    """
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(examples.rows):
        groups.setdefault(row.target if isinstance(row.target, str) else "", []).append(i)
    rng, chosen = np.random.default_rng(seed), set()
    for label in sorted(groups):
        rows = groups[label]
        count = min(round(fraction * len(rows)), len(rows) - 1)
        chosen.update(rng.permutation(rows)[:count].tolist())
    if not chosen:
        raise DataError(f"{examples.name}: {len(examples)} rows are too few for a dev_fraction of {fraction}")
    train = [row for i, row in enumerate(examples.rows) if i not in chosen]
    dev = [row for i, row in enumerate(examples.rows) if i in chosen]
    return (
        dataclasses.replace(examples, rows=train),
        dataclasses.replace(examples, name=f"{examples.name}, dev rows", rows=dev, left_out=0, dropped={}),
    )
