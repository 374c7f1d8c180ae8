"""The settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertsym.errors import UsageError

LEARNING_RATE, FROZEN_LEARNING_RATE, MAX_LENGTH = 5e-5, 1e-3, 128


@dataclass(frozen=True)
class FinetuneOptions:
    """Hyper-parameters, with the defaults of BERT fine-tuning (Devlin et al. 2018, appendix A.3).

    Raises UsageError for a number out of range.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None  #: peak; None: 5e-5, or 1e-3 with a frozen encoder
    warmup: float = 0.1  #: part of the steps
    weight_decay: float = 0.01  #: decoupled; none on bias, gamma, beta
    clip_norm: float = 1.0  #: global norm of the gradients; 0 for no clipping
    accumulate: int = 1  #: passes of which a batch's gradients are summed: less memory, the same step
    dropout: float = 0.1  #: of the head
    max_length: int | None = None  #: tokens, longer texts are truncated; None: 128, or fewer if the model has fewer
    seed: int = 0
    literal_special_tokens: bool = False  #: take words such as ``[SEP]`` in a text as text
    freeze_encoder: bool = False
    whole_sequence: bool = False
    patience: int | None = None  #: stop after so many epochs that were not better on dev (metric, then loss)
    device: str = "cpu"
    on_error: str = "fail"  #: at a row that can't be read: ``fail``, or ``skip`` to leave it out

    def __post_init__(self) -> None:
        def need(good: bool, name: str, what: str) -> None:
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)}, {what} is needed")

        for name in ("epochs", "batch_size", "accumulate"):
            need(getattr(self, name) >= 1, name, "1 or more")
        need(self.max_length is None or self.max_length >= 1, "max_length", "1 or more")
        need(self.seed >= 0, "seed", "0 or more")
        need(self.learning_rate is None or 0 < self.learning_rate < 1, "learning_rate", "a number between 0 and 1")
        need(0 <= self.warmup <= 1, "warmup", "a part from 0 to 1")
        need(0 <= self.weight_decay < 1, "weight_decay", "a number from 0 to below 1")
        need(0 <= self.clip_norm < float("inf"), "clip_norm", "a number from 0")
        need(0 <= self.dropout < 1, "dropout", "a number from 0 to below 1")
        need(self.on_error in ("fail", "skip"), "on_error", "fail or skip")
        need(self.patience is None or self.patience >= 1, "patience", "1 or more")

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that was given, or the default for what is trained."""
        if self.learning_rate is not None:
            return self.learning_rate
        return FROZEN_LEARNING_RATE if self.freeze_encoder else LEARNING_RATE

    def length_for(self, positions: int) -> int:
        """The max_length for a model of so many positions; raises UsageError when it is beyond them."""
        if self.max_length is not None and self.max_length > positions:
            raise UsageError(f"max length {self.max_length} is beyond the {positions} positions of the model")
        return self.max_length or min(MAX_LENGTH, positions)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for the manifest."""
        return {**dataclasses.asdict(self), "learning_rate": self.peak_learning_rate}
