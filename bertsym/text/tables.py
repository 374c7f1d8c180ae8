"""Reading tables: TSV as GLUE publishes it, CSV, JSON Lines; a row at a time, errors with line numbers."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.errors import DataError, UsageError
from bertsym.text.tasks import USUAL_LABEL, USUAL_PAIR, USUAL_TEXT, Columns

FORMATS = ("tsv", "csv", "jsonl")
_SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@dataclass(frozen=True)
class TableFormat:
    """How a file is read. ``kind`` None: by its suffix. ``columns`` not given: by the usual header names."""

    kind: str | None = None
    header: bool = True
    columns: Columns = Columns()


@dataclass(frozen=True)
class Row:
    """One example and the line on which it starts."""

    line: int
    text: str
    pair: str | None = None
    label: str | None = None


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


class Table:
    """The rows of one file or stream, read lazily; ``columns`` tells what was chosen once it is open.

    With `need_label` False the label column may be absent. Raises DataError on anything that isn't as
    it should be, with file and line; UsageError on an unknown suffix.
    """

    def __init__(self, source: str | Path | BinaryIO, table_format: TableFormat, need_label: bool = True) -> None:
        self.name = str(source) if isinstance(source, (str, Path)) else "standard input"
        self._need_label = need_label
        self._file = _opened(source) if isinstance(source, (str, Path)) else source
        try:
            self._kind = table_format.kind or self._kind_by_suffix()
            lines = self._lines()
            if self._kind == "jsonl":
                self._records: Iterator[tuple[int, Any]] = self._json_records(lines)
                self.columns = table_format.columns
            else:
                fields = self._tsv_fields(lines) if self._kind == "tsv" else self._csv_fields(lines)
                self._open_fields(fields, table_format)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def _kind_by_suffix(self) -> str:
        suffix = Path(self.name).suffix.lower()
        if suffix not in _SUFFIXES:
            raise UsageError(f"{self.name}: can't tell the format from the name, give --format {'|'.join(FORMATS)}")
        return _SUFFIXES[suffix]

    def error(self, line: int, why: str) -> DataError:
        """A DataError that names the file and the line."""
        return DataError(f"{self.name}, line {line}: {why}")

    # Lines end at \n only: a text may hold U+2028, U+0085 or a vertical tab.
    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            for number, raw in enumerate(self._file, 1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise self.error(number, f"not UTF-8 text (byte {error.start} of the line)") from None
        except OSError as error:
            raise DataError(f"{self.name}: {error.strerror}") from None

    def _tsv_fields(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
        # No quoting: GLUE's files hold quotation marks that are plain text.
        for number, line in lines:
            stripped = line.removesuffix("\n").removesuffix("\r")
            if stripped:
                yield number, stripped.split("\t")

    def _csv_fields(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(1 << 30)
        reader = csv.reader((line for _, line in lines), strict=True)
        start = 1
        try:
            for fields in reader:
                if fields:
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise self.error(start, f"not valid CSV: {error}") from None

    def _json_records(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise self.error(number, "not a JSON value") from None
            if not isinstance(record, dict):
                raise self.error(number, "not a JSON object")
            yield number, record

    def _open_fields(self, fields: Iterator[tuple[int, list[str]]], table_format: TableFormat) -> None:
        first = next(fields, None)
        if first is None:
            raise DataError(f"{self.name}: empty file")
        names = first[1] if table_format.header else []
        width = len(first[1])
        self.columns = self._choose(names, table_format.columns)
        places = {
            part: self._place(name, names, width)
            for part, name in vars(self.columns).items()
            if name is not None and (part != "label" or self._need_label)
        }

        def records() -> Iterator[tuple[int, dict[str, str]]]:
            if not table_format.header:
                yield first[0], {part: first[1][place] for part, place in places.items()}
            for number, values in fields:
                if len(values) != width:
                    raise self.error(number, f"{len(values)} columns, {width} expected")
                yield number, {part: values[place] for part, place in places.items()}

        self._records = records()

    def _choose(self, names: list[str], wanted: Columns) -> Columns:
        """The wanted columns, and the usual ones for those that nobody named."""

        def usual(candidates: tuple[str, ...]) -> str | None:
            return next((name for name in candidates if name in names), None)

        text = wanted.text or usual(USUAL_TEXT)
        if text is None:
            found = f"the columns are {', '.join(map(repr, names))}" if names else "there is no header"
            raise DataError(f"{self.name}: which column is the text? Give --text-column ({found})")
        # A pair is only guessed together with its text.
        pair = wanted.pair or (usual(USUAL_PAIR) if wanted.text is None else None)
        label = wanted.label or usual(USUAL_LABEL)
        if label is None and self._need_label:
            found = f"the columns are {', '.join(map(repr, names))}" if names else "there is no header"
            raise DataError(f"{self.name}: which column is the label? Give --label-column ({found})")
        return Columns(text, pair, label)

    def _place(self, name: str, names: list[str], width: int) -> int:
        if name in names:
            if names.count(name) > 1:
                raise DataError(f"{self.name}: {names.count(name)} columns are named {name!r}")
            return names.index(name)
        if name.isascii() and name.isdigit():
            if not 1 <= int(name) <= width:
                raise DataError(f"{self.name}: no column {name}, there are {width}")
            return int(name) - 1
        found = ", ".join(map(repr, names)) if names else f"{width}, without a header"
        raise DataError(f"{self.name}: no column {name!r} (the columns are {found})")

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        finally:
            self._close()

    def _rows(self) -> Iterator[Row]:
        for number, record in self._records:
            if self._kind == "jsonl":
                if self.columns.text is None or (self.columns.label is None and self._need_label):
                    self.columns = self._choose(list(record), self.columns)
                record = self._json_row(number, record)
            text, pair = record["text"], record.get("pair")
            for what, value in (("text", text), ("second text", pair)):
                if value is not None and not value.strip():
                    raise self.error(number, f"the {what} is empty")
                if value is not None and not is_unicode(value):
                    raise self.error(number, f"the {what} is not valid Unicode")
            label = record.get("label")
            if label is not None:
                if not is_unicode(label):
                    raise self.error(number, "the label is not valid Unicode")
                label = label.strip()
                if not label:
                    raise self.error(number, "the label is empty")
            yield Row(number, text, pair, label)

    def _json_row(self, number: int, record: dict[str, Any]) -> dict[str, str]:
        row = {}
        for part, key in vars(self.columns).items():
            if key is None or (part == "label" and not self._need_label):
                continue
            if key not in record:
                raise self.error(number, f"no key {key!r}")
            value = record[key]
            if part == "label" and isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if not isinstance(value, str):
                raise self.error(number, f"{key!r} is not a text")
            row[part] = value
        return row


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; half a surrogate pair, which JSON can spell, can't."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_table(
    path: str | Path | BinaryIO, table_format: TableFormat, need_label: bool = True
) -> tuple[list[Row], Columns]:
    """All rows of a table and the columns they came from; raises DataError, also when there is no row."""
    table = Table(path, table_format, need_label)
    rows = list(table)
    if not rows:
        raise DataError(f"{table.name}: no rows")
    return rows, table.columns
