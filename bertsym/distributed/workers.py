"""The workers that compute a batch together; here the single worker of a local run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bertsym.array import Array
from bertsym.errors import BertsymError


class WorkersLost(BertsymError):
    """Another process of a distributed run ended, failed or stopped responding."""


class Workers:
    """A single worker, which computes all rows. Subclasses are one of several workers that run the same steps.

    All methods but `shard` are collective operations: every worker must call them in the same order. They raise
    WorkersLost if another process is lost.
    """

    rank = 0  #: worker 0 evaluates and writes
    count = 1

    def shard(self, rows: Array) -> Array:
        """Return this worker's rows of a batch, interleaved because the rows may be sorted by length."""
        return rows[self.rank :: self.count]

    def sum_in_place(self, arrays: Sequence[Any]) -> None:
        """Replace each array with its sum over the workers."""

    def sum_number(self, number: float) -> float:
        """Return the sum of a number over the workers."""
        return number

    def broadcast_array(self, array: Any) -> Any:
        """Return the first worker's array, (1,)."""
        return array

    def broadcast_arrays(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the first worker's arrays, in float32; names and shapes are equal on all workers."""
        return arrays

    def broadcast_text(self, text: str) -> str:
        """Return the first worker's text."""
        return text

    def require_equal(self, name: str, parts: Iterable[Any]) -> str:
        """Return the SHA-256 of some bytes or arrays, or an empty string for a single worker.

        Raises ModelError if it differs between the workers.
        """
        return ""

    def leave(self) -> None:
        """End the exchange once all workers are done."""


ALONE = Workers()
