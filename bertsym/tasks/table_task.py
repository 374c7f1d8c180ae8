"""Tasks whose examples are the rows of a table: a text, or two, and a label."""

from __future__ import annotations

import abc
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar, Union

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.tasks.example_chunks import collect_examples, require_some
from bertsym.tasks.task import Example, Examples, Reading, Source, Task
from bertsym.text.features import encode_each, encode_windows
from bertsym.text.header import check_first_line, warn_of_header_in_stream
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Row, Table
from bertsym.text.tokenizer import Encoded

_T = TypeVar("_T")
Windows = tuple[Encoded, ...]
#: tokenises rows of a named file; a row that can't be used is replaced with its error, and errors are kept
RowEncoder = Callable[[Sequence[Union[Row, DataError]], Reading, str], "list[_T | DataError]"]

_CHUNK_ROWS = 1024  # tokenised between two reports of progress


@dataclass(frozen=True)
class TextTargets:
    """The label of each window for the label input `name`: (windows, ...) float32."""

    name: str
    values: Array

    @classmethod
    def of(cls, name: str, values: Array, examples: Examples) -> TextTargets:
        """Give each window the label of its text; `values` are the labels of the texts."""
        windows = [len(row.windows) for row in examples.rows]
        return cls(name, np.repeat(values.astype(np.float32), windows, axis=0))

    def labels(self, rows: Array, length: int) -> dict[str, Array]:
        """Return the labels of some windows, (N, ...) float32."""
        return {self.name: self.values[rows]}

    def count(self, rows: Array) -> int:
        """Return the number of windows."""
        return len(rows)


@dataclass(frozen=True)
class TableTask(Task):
    """A task whose examples are the rows of a table."""

    #: overlap, in tokens, of the windows of a text that is too long, of a pair the second one; None: it is truncated
    stride: int | None = None

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics and the stride."""
        stride = document.get("stride").optional(lambda value: value.integer(0))
        return {**super().read_settings(document), "stride": stride}

    @abc.abstractmethod
    def parse_label(self, row: Row, where: str) -> Any:
        """Return the target of a labelled row; raises DataError, which names `where` and the line."""

    def label_counts(self, rows: Iterable[Row], first: str | None = None) -> dict[str, int]:
        """Return label -> number of rows, of the labels that show whether the first line of a table is a header.

        `first` is the label of the first line; `rows` are the other rows of a training file.
        """
        return {}

    def table_format(self, given: TableFormat) -> TableFormat:
        """Return how a table is read for this task."""
        return given

    def read(self, source: Source, reading: Reading, labelled: bool = True) -> Examples:
        """Read and tokenise all rows of a table but those whose label is dropped."""
        table = Table(source, self.table_format(reading.table_format), need_label=labelled)
        dropped: Counter[str] = Counter()
        found: list[Row | DataError] = []
        for row in table.each():
            if isinstance(row, Row) and row.label in table.drop_labels:
                dropped[row.label] += 1
            else:
                found.append(row)
        self._check_first_line(table, found, reading.warn)
        targets: list[Any] = [None] * len(found)
        for i, row in enumerate(found):
            if not labelled or isinstance(row, DataError):
                continue
            try:
                targets[i] = self.parse_label(row, table.name)
            except DataError as error:
                is_first = table.first_line is not None and row.line == table.first_line.line
                found[i] = DataError(f"{error}; if the line is a header, give --header") if is_first else error
        parts = (found[start : start + _CHUNK_ROWS] for start in range(0, len(found), _CHUNK_ROWS))
        chunks = ((part, self.encode(part, reading, table.name)) for part in parts)
        encoded = as_examples(chunks, targets, reading.keeps_texts)
        rows, left_out = collect_examples(encoded, reading, table.name, "rows", dropped, len(found))
        has_pair = table.columns.pair is not None
        check_pair(reading.pair, has_pair)
        return Examples(table.name, rows, table.sha256, left_out, dropped, table.layout, has_pair)

    def _check_first_line(self, table: Table, found: Sequence[Row | DataError], warn: Callable[[str], object]) -> None:
        first = table.first_line
        if first is None:
            return
        others = (row for row in found if isinstance(row, Row) and row.line != first.line)
        counts = self.label_counts(others, first.cell("label"))
        # A dropped label marks a row as well as a class does.
        known = {**dict.fromkeys(table.drop_labels, 2), **counts}
        check_first_line(first, table.name, known, table.need_label, warn)

    def examples(self, source: Source, reading: Reading) -> Iterator[list[Example | DataError]]:
        """Yield the rows of a table or stream in order, in chunks, and in constant memory."""
        return as_examples(encode_table(source, reading, self.encode, self.label_counts(())))

    def encode_texts(
        self, texts: Sequence[str], pairs: Sequence[str] | None, reading: Reading
    ) -> Iterator[list[Example | DataError]]:
        """Yield texts, or pairs of texts, in order and in chunks."""
        return as_examples(encode_rows(text_rows(texts, pairs, reading.pair), reading, "the texts", self.encode))

    def encode(self, rows: Sequence[Row | DataError], reading: Reading, where: str) -> list[Windows | DataError]:
        """Tokenise rows of the file `where`, each into one window or, with a stride, several.

        A row that can't be used is replaced with its error, and errors are kept.
        """
        if self.stride is not None:
            return encode_windows(rows, reading.tokenizer, where, self.stride)
        return encode_in_one_window(rows, reading, where)


def encode_truncated(rows: Sequence[Row | DataError], reading: Reading, where: str) -> list[Encoded | DataError]:
    """Tokenise rows of the file `where`; a row that can't be used is replaced with its error, and errors are kept."""
    return encode_each(rows, reading.tokenizer, where)


def encode_in_one_window(rows: Sequence[Row | DataError], reading: Reading, where: str) -> list[Windows | DataError]:
    """Tokenise rows as `encode_truncated` does, each into one window."""
    found = encode_truncated(rows, reading, where)
    return [each if isinstance(each, DataError) else (each,) for each in found]


def as_examples(
    chunks: Iterable[tuple[list[Row | DataError], list[Windows | DataError]]],
    targets: Iterable[Any] = repeat(None),
    keeps_texts: bool = False,
) -> Iterator[list[Example | DataError]]:
    """Yield chunks of encoded rows as examples, with the targets of all rows."""
    remaining = iter(targets)
    for rows, encoded in chunks:
        found: list[Example | DataError] = []
        for row, each, target in zip(rows, encoded, remaining):
            if isinstance(each, DataError):
                found.append(each)
            else:
                assert isinstance(row, Row)
                texts = (row.text,) if row.pair is None else (row.text, row.pair)
                found.append(Example(row.line, each, target, texts if keeps_texts else None, row.kept))
        yield found


def text_means(outputs: Sequence[Array], examples: Sequence[Example]) -> Array:
    """Return the output for each text, (texts, C): the mean over its windows."""
    values: Array = np.stack(outputs)
    sizes = np.array([len(example.windows) for example in examples])
    if len(values) == len(sizes):
        return values
    sums = np.add.reduceat(values, np.cumsum(sizes) - sizes)
    means: Array = sums / sizes[:, np.newaxis].astype(np.float32)
    return means


def check_pair(expected: bool | None, has_pair: bool) -> None:
    """Raise UsageError for pairs if a model was trained on single texts, and vice versa; None takes either."""
    if has_pair and expected is False:
        raise UsageError("this model was trained on single texts: omit the second text")
    if not has_pair and expected:
        raise UsageError("this model was trained on text pairs: give the second text too")


def encode_table(
    source: Source, reading: Reading, encode: RowEncoder[_T], labels: Iterable[str] = ()
) -> Iterator[tuple[list[Row | DataError], list[_T | DataError]]]:
    """Yield chunks of an unlabelled table or stream: its rows, and what `encode` makes of each.

    A stream has one text per line, or two texts separated by a tab if the model was trained on pairs, unless
    ``reading.table_format`` is given. `labels` show that the first line of a table is not its header.

    While iterating, raises DataError for an unreadable table and for a file without rows, and UsageError for pairs if
    the model was trained on single texts, and vice versa.
    """
    table_format = reading.table_format
    if not isinstance(source, (str, Path)):
        table_format = table_format.of_stream("pairs" if reading.pair else "lines")
    table = Table(source, table_format, need_label=False)
    if table.first_line is not None:
        known = dict.fromkeys([*labels, *table.drop_labels], 0)
        try:
            check_first_line(table.first_line, table.name, known, False, reading.warn)
        except DataError:
            table.close()
            raise
    rows = table.each()
    if table_format.kind in ("lines", "pairs"):
        rows = _warn_of_header(rows, table.name, reading.warn)
    yield from require_some(encode_rows(rows, reading, table.name, encode), source, table.name, "rows")


def encode_rows(
    rows: Iterable[Row | DataError], reading: Reading, where: str, encode: RowEncoder[_T]
) -> Iterator[tuple[list[Row | DataError], list[_T | DataError]]]:
    """Yield chunks of rows, and what `encode` makes of each."""
    for chunk in reading.chunking(rows, _characters):
        first = next((row for row in chunk if isinstance(row, Row)), None)
        if first is not None:
            check_pair(reading.pair, first.pair is not None)
        if reading.prompt:
            chunk = [_with_prompt(row, reading.prompt) for row in chunk]
        yield chunk, encode(chunk, reading, where)


def text_rows(texts: Sequence[str], pairs: Sequence[str] | None, expects_pairs: bool | None) -> list[Row]:
    """Return texts, or text pairs, as rows.

    Raises UsageError for arguments that are not lists of equal length, and for pairs where the model expects single
    texts, and vice versa; DataError for an empty text.
    """
    if isinstance(texts, str) or isinstance(pairs, str):
        raise UsageError("texts must be a list of texts, not a single text")
    if pairs is not None and len(pairs) != len(texts):
        raise UsageError(f"{len(texts)} texts but {len(pairs)} second texts")
    check_pair(expects_pairs, pairs is not None)
    rows = [Row(i + 1, text, pairs[i] if pairs is not None else None) for i, text in enumerate(texts)]
    for row in rows:
        if not row.text.strip() or (row.pair is not None and not row.pair.strip()):
            raise DataError(f"text {row.line} of {len(rows)} is empty")
    return rows


def warn_of_absent_labels(labels: Sequence[str], tables: Sequence[Examples], warn: Callable[[str], object]) -> None:
    """Warn of labels whose rows were to be dropped and that none of the tables has."""
    for label in labels:
        if not any(label in rows.dropped for rows in tables):
            warn(f"warning: no row of {' and '.join(rows.name for rows in tables)} has the dropped label {label!r}")


def _warn_of_header(
    rows: Iterator[Row | DataError], where: str, warn: Callable[[str], object]
) -> Iterator[Row | DataError]:
    """Yield the rows of a stream, and warn if the first one is a header."""
    for row in rows:
        if isinstance(row, Row) and row.line == 1:
            cells = row.text.split("\t") if row.pair is None else [row.text, row.pair]
            warn_of_header_in_stream(cells, f"{where}, line 1", warn)
        yield row


def _with_prompt(row: Row | DataError, prompt: str) -> Row | DataError:
    return dataclasses.replace(row, text=prompt + row.text) if isinstance(row, Row) else row


def _characters(row: Row | DataError) -> int:
    return sum(map(len, (row.text, row.pair or "", *map(str, row.kept)))) if isinstance(row, Row) else 0
