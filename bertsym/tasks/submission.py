"""Predictions as lines of the file that a benchmark's server accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertsym.datasets.dataset import Submission
from bertsym.errors import DataError
from bertsym.tasks.task import Prediction, Task

_DECIMALS = 6


class SubmissionLines:
    """Formats the predictions for a file, row after row.

    A prediction's answer is the first value of its JSON object: a label or a number. The line of a row that can't be
    read has the first class, or the number 0, since the server wants a line for each row.
    """

    def __init__(self, submission: Submission, task: Task) -> None:
        self._submission, self._task, self._rows = submission, task, 0
        self.header = "\t".join(submission.header)

    def line(self, answer: tuple[Sequence[Any], Prediction] | DataError) -> str:
        """Format a prediction with the index of its row; without an index, rows are numbered from 0."""
        index: Any = self._rows
        self._rows += 1
        if isinstance(answer, DataError):
            value: Any = self._task.class_names[0] if self._task.class_names else 0.0
        else:
            kept, prediction = answer
            index = kept[0] if kept else index
            value = next(iter(prediction.to_json().values()))
        return f"{index}\t{self._written(value)}"

    def _written(self, value: Any) -> str:
        if isinstance(value, str):
            return self._submission.labels.get(value, value)
        least, most = self._submission.range or (value, value)
        decimals = _DECIMALS if self._submission.decimals is None else self._submission.decimals
        return f"{min(max(value, least), most):.{decimals}f}"
