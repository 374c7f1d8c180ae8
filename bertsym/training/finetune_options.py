"""Settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertsym.errors import UsageError
from bertsym.reports.options import ReportOptions
from bertsym.tasks.options import TaskOptions
from bertsym.text.table_format import TableFormat

LEARNING_RATE, FROZEN_LEARNING_RATE, DROPOUT_PROBABILITY = 5e-5, 1e-3, 0.1
_NOT_IN_MANIFEST = (
    "report",
    "seeds",
    "task",
    "task_options",
    "table_format",
    "worker_timeout",
)  # recorded as read, or without influence on the result


@dataclass(frozen=True)
class FinetuneOptions:
    """Hyperparameters, with the defaults of Devlin et al. 2018, appendix A.3, and how to read the tables.

    Raises UsageError for a value that is out of range.
    """

    task: str = "classification"  #: for `find_dataset`: a kind of task, a known data set, or a file ``NAME.toml``
    task_options: TaskOptions = TaskOptions()  #: options that only some kinds of task have
    dev_fraction: float | None = None  #: fraction of the training rows that are dev rows, in place of a dev table
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None  #: peak; None: 5e-5, or 1e-3 with a frozen encoder
    warmup: float = 0.1  #: fraction of the steps used for linear warm-up
    weight_decay: float = 0.01  #: decoupled; not applied to bias, gamma, beta
    clip_norm: float = 1.0  #: limit of the global gradient norm; 0 disables clipping
    accumulate: int = 1  #: passes per batch, with summed gradients: less memory, the same step
    dropout: float | None = None  #: dropout probability in the head; None: 0.1, or that of the head that is continued
    new_head: bool = False  #: replace the head of the base with a new one
    head: str = "plain"  #: ``plain``: one layer on the output of the base; ``family``: the head that its family has
    max_length: int | None = None  #: tokens; None: 128, for question answering 384, or the model's limit if lower
    seed: int = 0
    #: train with each of these, at least two, and keep the best; `dev_fraction` draws by `seed` for all of them
    seeds: tuple[int, ...] = ()
    literal_special_tokens: bool = False  #: tokenize ``[SEP]`` and the like in a text as ordinary text
    freeze_encoder: bool = False  #: train the head only
    freeze_layers: int | None = None  #: do not train the embeddings and the first N layers; None: train them all
    layer_decay: float = 1.0  #: factor of the learning rate from each layer to the layer before it
    whole_sequence: bool = False  #: flatten the sequence output into the classifier, which fixes the length
    eval_steps: int | None = None  #: evaluate on dev after every N steps, in addition to every epoch
    metric: str | None = None  #: dev metric that decides what is kept; None: the task's first
    patience: int | None = None  #: stop after this many evaluations without a better dev metric (ties: dev loss)
    device: str = "cpu"
    on_error: str = "fail"  #: for an unreadable row: ``fail``, or ``skip`` to leave it out
    table_format: TableFormat = TableFormat()  #: format and columns of both tables
    report: ReportOptions | None = None  #: folder of a report about training, metrics and errors; None: no report
    worker_timeout: float = 60.0  #: seconds without a message after which a distributed run gives up a process

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        fraction = self.dev_fraction
        _require(self, "dev_fraction", fraction is None or 0 < fraction < 1, "between 0 and 1, exclusive")
        _require(self, "max_length", self.max_length is None or self.max_length >= 1, "1 or more")
        _require(self, "seed", self.seed >= 0, "0 or more")
        distinct = len(self.seeds) == len(set(self.seeds)) != 1
        _require(self, "seeds", distinct and all(seed >= 0 for seed in self.seeds), "two or more different integers")
        _require(
            self,
            "learning_rate",
            self.learning_rate is None or 0 < self.learning_rate < 1,
            "between 0 and 1, exclusive",
        )
        _require(self, "warmup", 0 <= self.warmup <= 1, "a fraction from 0 to 1")
        _require(self, "weight_decay", 0 <= self.weight_decay < 1, "0 or more and below 1")
        _require(self, "clip_norm", 0 <= self.clip_norm < float("inf"), "finite and 0 or more")
        _require(self, "dropout", self.dropout is None or 0 <= self.dropout < 1, "0 or more and below 1")
        _require(self, "freeze_layers", self.freeze_layers is None or self.freeze_layers >= 0, "0 or more")
        _require(self, "layer_decay", 0 < self.layer_decay <= 1, "above 0 and at most 1")
        if self.freeze_encoder and (self.freeze_layers is not None or self.layer_decay != 1):
            option = "layer_decay" if self.freeze_layers is None else "freeze_layers"
            raise UsageError(
                f"{option} has no effect with freeze_encoder, which trains the head alone; omit one of them"
            )
        _require(self, "on_error", self.on_error in ("fail", "skip"), "fail or skip")
        _require(self, "eval_steps", self.eval_steps is None or self.eval_steps >= 1, "1 or more")
        _require(self, "head", self.head in ("plain", "family"), "plain or family")
        _require(self, "patience", self.patience is None or self.patience >= 1, "1 or more")
        _require(self, "worker_timeout", self.worker_timeout > 0, "a number of seconds above 0")

    @property
    def peak_learning_rate(self) -> float:
        """The given learning rate, or the default for full or head-only training."""
        if self.learning_rate is not None:
            return self.learning_rate
        return FROZEN_LEARNING_RATE if self.freeze_encoder else LEARNING_RATE

    def resolve_max_length(self, positions: int, default: int) -> int:
        """Return the maximum length for a model with `positions` positions; raises UsageError if it exceeds them.

        `default` is that of the task.
        """
        if self.max_length is not None and self.max_length > positions:
            raise UsageError(f"max_length must be at most {positions}, the model's positions, not {self.max_length}")
        return self.max_length or min(default, positions)

    def to_dict(self) -> dict[str, Any]:
        """Return the hyperparameters as plain values, for the manifest."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **{name: value for name, value in values.items() if name not in _NOT_IN_MANIFEST},
            "learning_rate": self.peak_learning_rate,
        }


@dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, how many are kept, and whether to resume from one.

    Raises UsageError for a value that is out of range.
    """

    checkpoint_steps: int | None = None  #: write a checkpoint every N steps, in addition to one per epoch
    keep_checkpoints: int = 1  #: number of newest checkpoints to keep
    resume: bool = False  #: continue from the newest checkpoint

    def __post_init__(self) -> None:
        _require(self, "checkpoint_steps", self.checkpoint_steps is None or self.checkpoint_steps >= 1, "1 or more")
        _require(self, "keep_checkpoints", self.keep_checkpoints >= 1, "1 or more")


def _require(options: object, name: str, valid: bool, expected: str) -> None:
    if not valid:
        raise UsageError(f"{name} must be {expected}, not {getattr(options, name)}")
