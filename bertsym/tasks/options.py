"""Options of kinds of task, for training and for prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from bertsym.errors import UsageError
from bertsym.tasks.class_weights import ClassWeights, check_class_weights


@dataclass(frozen=True)
class TaskOptions:
    """Options of kinds of task for training; None means the default of the kind.

    Each kind of task names those that it has in `Task.option_names`.
    """

    positive_label: str | None = None  #: label that is the positive class of the F1 score
    class_weights: ClassWeights = None  #: ``balanced``, or weights by label, of the loss
    label_smoothing: float | None = None  #: fraction of the target that is spread evenly over all classes
    scheme: str | None = None  #: tagging scheme, IOB1, IOB2 or IOBES, by which tags are checked and entities found
    stride: int | None = None  #: overlap, in tokens, of the windows in which long texts are read; None: truncated
    label_delimiter: str | None = None  #: between the labels of a row
    label_columns: tuple[str, ...] | None = None  #: a column of 0 and 1 for each label, in place of the label column
    threshold: float | None = None  #: of predicted labels, the least probability, the same for all labels
    sigmoid: bool | None = None  #: whether a predicted value is the sigmoid of the model's output
    top_k: int | None = None  #: number of classes, or of words for each mask, that a prediction lists

    def __post_init__(self) -> None:
        check_class_weights(self.class_weights)
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be 0 or more and below 1, not {self.label_smoothing}")
        if self.stride is not None and self.stride < 0:
            raise UsageError(f"stride must be 0 or more, not {self.stride}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold must be a probability from 0 to 1, not {self.threshold}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {self.top_k}")

    def require_only(self, task: str, names: Collection[str]) -> None:
        """Raise UsageError if an option is given that is not among `names`, those of the kind `task`."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name not in names:
                option = f"--{'no-' if value is False else ''}{field.name.replace('_', '-')}"
                if not isinstance(value, bool):
                    option += f" {','.join(value) if isinstance(value, tuple) else value}"
                raise UsageError(f"{option} has no effect for the task {task}: omit it")
