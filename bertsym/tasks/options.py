"""Options of kinds of task, as ``finetune`` takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from bertsym.errors import UsageError


@dataclass(frozen=True)
class TaskOptions:
    """Options that only some kinds of task have; None means the default of the kind.

    Each kind of task names those that it has in `Task.option_names`.
    """

    positive: str | None = None  #: label that is the positive class of the F1 score

    def require_only(self, task: str, names: Collection[str]) -> None:
        """Raise UsageError if an option is given that is not among `names`, those of the kind `task`."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None and field.name not in names:
                option = field.name.replace("_", "-")
                raise UsageError(f"--{option} {getattr(self, field.name)}: the task {task} has no such option")
