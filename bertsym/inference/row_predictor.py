"""What computes a bundle's output for encoded texts, by any engine."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from bertsym.array import Array
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

T = TypeVar("T")


class RowPredictor(abc.ABC):
    """Computes the first output of a symbol for encoded texts, batch by batch."""

    @abc.abstractmethod
    def each(
        self,
        features: Features,
        keep: Callable[[Array, Encoded], T],
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """Return for each example, in the order of `features`, what `keep` returns for its output and the example.

        A per-token output has the padded length of its batch: `keep` removes the padding. `on_rows` is called with the
        number of rows in each finished batch. Raises DataError if there are no rows, and ModelError if an output is not
        finite.
        """

    def __call__(self, features: Features, on_rows: Callable[[int], object] = lambda count: None) -> Array:
        """Return the output's rows in the order of `features`, (rows, ...) float32; raises the errors of `each`."""
        return np.stack(self.each(features, lambda output, example: output, on_rows))
