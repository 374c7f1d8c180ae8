"""Examples that arrive in chunks: a whole file of them, and streams that must not be empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bertsym.errors import DataError
from bertsym.tasks.task import Example, Reading, Source

_T = TypeVar("_T")


def collect_examples(
    chunks: Iterable[Sequence[Example | DataError]],
    reading: Reading,
    name: str,
    what: str,
    dropped: Mapping[str, int] | None = None,
    total: int | None = None,
) -> tuple[list[Example], int]:
    """Return the examples of a file, and the number of those that can't be read.

    Args:
        chunks: The examples, or the error of each one that can't be read.
        reading: Its ``on_bad_row`` is called with each error; without it the first error is raised. Its ``on_rows`` is
            called after each chunk.
        name: Name of the file, for messages.
        what: What the examples are, such as ``rows``, for messages.
        dropped: Numbers of rows that were dropped, by label, for messages.
        total: Number of all examples, if it is known.

    Raises:
        DataError: An example can't be read, or there is none.
    """
    examples: list[Example] = []
    left_out = 0
    for chunk in chunks:
        for example in chunk:
            if isinstance(example, Example):
                examples.append(example)
            elif reading.on_bad_row is None:
                raise example
            else:
                reading.on_bad_row(example)
                left_out += 1
        reading.on_rows(len(examples) + left_out, total)
    if not examples:
        parts = [f"{left_out} that can't be read"] if left_out else []
        parts += [f"{count} with the dropped label {label!r}" for label, count in (dropped or {}).items()]
        but = f" but {' and '.join(parts)}" if parts else ""
        raise DataError(f"{name}: no {what}{but}")
    return examples, left_out


def require_some(chunks: Iterable[_T], source: Source, name: str, what: str) -> Iterator[_T]:
    """Yield chunks; raises DataError after none if they are those of a file, which must not be empty."""
    empty = True
    for chunk in chunks:
        empty = False
        yield chunk
    if empty and isinstance(source, (str, Path)):
        raise DataError(f"{name}: no {what}")
