"""Options of kinds of task, as ``finetune`` takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from bertsym.errors import UsageError
from bertsym.tasks.class_weights import ClassWeights, check_class_weights


@dataclass(frozen=True)
class TaskOptions:
    """Options that only some kinds of task have; None means the default of the kind.

    Each kind of task names those that it has in `Task.option_names`.
    """

    positive: str | None = None  #: label that is the positive class of the F1 score
    class_weights: ClassWeights = None  #: ``balanced``, or weights by label, of the loss
    label_smoothing: float | None = None  #: fraction of the target that is spread evenly over all classes
    scheme: str | None = None  #: tagging scheme, IOB1, IOB2 or IOBES, by which tags are checked and entities found
    stride: int | None = None  #: overlap, in tokens, of the windows in which long texts are read; None: truncated

    def __post_init__(self) -> None:
        check_class_weights(self.class_weights)
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be 0 or more and below 1, not {self.label_smoothing}")

    def require_only(self, task: str, names: Collection[str]) -> None:
        """Raise UsageError if an option is given that is not among `names`, those of the kind `task`."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None and field.name not in names:
                option = field.name.replace("_", "-")
                raise UsageError(f"--{option} {getattr(self, field.name)}: the task {task} has no such option")
