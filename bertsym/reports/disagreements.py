"""The rows that two models answer differently, and those that both answer wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsym.reports.blocks import MOST_ROWS, Table, answer_text
from bertsym.reports.evaluation import EvaluatedModel
from bertsym.reports.paired import Comparison


def disagreements(found: Comparison, with_texts: bool) -> Table:
    """List the rows with different answers, the largest difference of the scores first."""
    one, two = (each.scores for each in found.assessments)
    rows = np.flatnonzero(~found.agreeing)
    rows = rows[np.argsort(-np.abs(two - one)[rows], kind="stable")]
    names, right = found.names, found.right
    shown = [int(row) for row in rows[:MOST_ROWS]]
    if found.have_right_answers:
        column = "who is right"
        texts = {(True, True): "both", (True, False): names[0], (False, True): names[1]}
        judged = [
            texts.get((bool(right[0][row]), bool(right[1][row])), _nearer(found, row, "neither")) for row in shown
        ]
    else:
        column = "who is nearer"
        judged = [_nearer(found, row, "both") for row in shown]
    title = f"{len(rows):,} rows where {names[0]} and {names[1]} disagree"
    return _table(found, title, shown, len(rows), with_texts, (column, judged))


def _nearer(found: Comparison, row: int, otherwise: str) -> str:
    """Return the name of the model with the better score."""
    one, two = (float(each.scores[row]) for each in found.assessments)
    name = found.names[int(two > one)]
    return otherwise if one == two else f"{name} is nearer" if found.have_right_answers else name


def both_wrong(found: Comparison, with_texts: bool) -> Table:
    """List the rows that both models answer wrong, the lowest scores first."""
    one, two = found.right
    rows = np.flatnonzero(~one & ~two)
    total = found.assessments[0].scores + found.assessments[1].scores
    rows = rows[np.argsort(total[rows], kind="stable")]
    title = f"{len(rows):,} rows that both get wrong"
    return _table(found, title, [int(row) for row in rows[:MOST_ROWS]], len(rows), with_texts, None)


def _table(
    found: Comparison,
    title: str,
    shown: Sequence[int],
    total: int,
    with_texts: bool,
    judged: tuple[str, Sequence[str]] | None,
) -> Table:
    """List rows with the correct answer and both answers; `judged` is a last column."""
    examples, task = found.first.examples, found.first.task
    table = task.example_rows(examples, with_texts)
    shows_answers = with_texts or bool(task.class_names)
    answers = [_answers(each, shown) for each in (found.first, found.second)]
    rows = []
    for place, row in enumerate(shown):
        cells = table.cells(row)
        if shows_answers:
            cells.append(answer_text(task.target_text(examples.rows[row])))
            for given, right in zip(answers, found.right):
                mark = ("right" if right[row] else "wrong") if found.have_right_answers else ""
                cells.append(answer_text(given[place], mark))
        rows.append([*cells, judged[1][place]] if judged is not None else cells)
    correct = "correct label" if task.class_names else "correct answer"
    columns: list[str] = [*table.columns]
    columns += [correct, *(f"{name} says" for name in found.names)] if shows_answers else []
    columns += [judged[0]] if judged is not None else []
    return Table(title, tuple(columns), rows, total, examples=True)


def _answers(found: EvaluatedModel, rows: Sequence[int]) -> list[str]:
    """Return the answers to some examples as text."""
    if not rows:
        return []
    windows = [len(row.windows) for row in found.examples.rows]
    ends = np.cumsum(windows)
    outputs = [found.outputs[place] for row in rows for place in range(ends[row] - windows[row], ends[row])]
    examples = [found.examples.rows[row] for row in rows]
    return [each.cells()[0] for each in found.task.predictions(outputs, examples)]
