"""The processes that compute a batch together; here the one that computes it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bertsym.errors import BertsymError
from bertsym.symbol.params import Array


class WorkersLost(BertsymError):
    """Another process of a distributed run ended or is no longer heard."""


class Workers:
    """One process, to which all rows belong. Subclasses are one of several that do the same steps."""

    rank = 0  #: the first one, 0, evaluates and writes
    count = 1

    def share(self, rows: Array) -> Array:
        """This process's rows of a batch; lengths of texts are sorted in it, so each gets long and short ones."""
        return rows[self.rank :: self.count]

    def add(self, arrays: Sequence[Any]) -> None:
        """Put into each array, in place, its sum over the workers. Raises WorkersLost."""

    def of_first(self, array: Any) -> Any:
        """The array of the first worker, (1,). Raises WorkersLost."""
        return array

    def total(self, number: float) -> float:
        """The sum of a number over the workers. Raises WorkersLost."""
        return number

    def hear_first(self, text: str) -> str:
        """The text of the first worker. Raises WorkersLost."""
        return text

    def take_first(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The arrays of the first worker, in float32; all have such. Raises WorkersLost."""
        return arrays

    def agree(self, what: str, parts: Iterable[Any]) -> str:
        """The SHA-256 of `what`, some bytes or arrays; where there is one worker nothing is computed, and it is empty.

        Raises ModelError where it is not the same on all workers; or WorkersLost.
        """
        return ""

    def leave(self) -> None:
        """Be done with the others, when all are. Raises WorkersLost."""


ALONE = Workers()
