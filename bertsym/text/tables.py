"""Reading tables: TSV as GLUE publishes it, CSV, JSON Lines; a row at a time, errors with line numbers."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.errors import DataError, UsageError
from bertsym.text.tasks import Columns, usual_columns

FORMATS = ("tsv", "csv", "jsonl")
_SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@dataclass(frozen=True)
class TableFormat:
    """How a file is read.

    ``kind`` is ``tsv``, ``csv``, ``jsonl``, ``lines`` (a text a line) or ``pairs`` (two with a tab between them);
    None: by the file's suffix. ``header``
    None: there is one. ``columns`` that are not given: by the usual header names.
    """

    kind: str | None = None
    header: bool | None = None
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


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


class Table:
    """The rows of one file or stream, read lazily.

    ``columns`` tells what was chosen once it is open, ``sha256`` is the digest of all bytes once it is read.
    With `need_label` False the label column may be absent, and an empty line is an error.

    Raises DataError on anything that isn't as it should be, with file and line; UsageError on an unknown
    suffix.
    """

    def __init__(self, source: str | Path | BinaryIO, table_format: TableFormat, need_label: bool = True) -> None:
        self.name = str(source) if isinstance(source, (str, Path)) else "standard input"
        self._need_label = need_label
        self._digest = hashlib.sha256()
        self._is_ours = isinstance(source, (str, Path))
        self._file = _opened(source) if isinstance(source, (str, Path)) else source
        try:
            self._kind = table_format.kind or self._kind_by_suffix()
            lines = self._lines()
            if self._kind == "jsonl":
                self._records: Iterator[tuple[int, Any]] = self._json_records(lines)
                self.columns = table_format.columns
            elif self._kind == "pairs":
                self._records = ((number, self._pair(number, line)) for number, line in lines)
                self.columns = Columns("1", "2")
            elif self._kind == "lines":
                self._records = ((number, {"text": _without_end(line)}) for number, line in lines)
                self.columns = Columns("1")
            else:
                fields = self._tsv_fields(lines) if self._kind == "tsv" else self._csv_fields(lines)
                self._open_fields(fields, table_format)
        except BaseException:
            self._close()
            raise

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read so far, in hexadecimal."""
        return self._digest.hexdigest()

    def _close(self) -> None:
        if self._is_ours:
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
                self._digest.update(raw)
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
            stripped = _without_end(line)
            yield number, stripped.split("\t") if stripped else []

    def _csv_fields(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(1 << 30)
        reader = csv.reader((line for _, line in lines), strict=True)
        start = 1
        try:
            for fields in reader:
                yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise self.error(start, f"not valid CSV: {error}") from None

    def _pair(self, number: int, line: str) -> dict[str, str]:
        texts = _without_end(line).split("\t")
        if len(texts) != 2:
            raise self.error(number, f"{len(texts)} columns, two texts expected; for a table give --format tsv")
        return {"text": texts[0], "pair": texts[1]}

    def _blank(self, number: int) -> None:
        """An empty line is no row; where every line is to get its answer it is an error."""
        if not self._need_label:
            raise self.error(number, "an empty line")

    def _without_blanks(self, fields: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
        for number, values in fields:
            if values:
                yield number, values
            else:
                self._blank(number)

    def _json_records(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
        for number, line in lines:
            if not line.strip():
                self._blank(number)
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise self.error(number, "not a JSON value") from None
            if not isinstance(record, dict):
                raise self.error(number, "not a JSON object")
            yield number, record

    def _open_fields(self, fields: Iterator[tuple[int, list[str]]], table_format: TableFormat) -> None:
        fields = self._without_blanks(fields)
        first = next(fields, None)
        if first is None:
            raise DataError(f"{self.name}: empty file")
        header = table_format.header is not False
        names = first[1] if header else []
        width = len(first[1])
        self.columns = self._choose(names, table_format.columns)
        places = {
            part: self._place(name, names, width)
            for part, name in vars(self.columns).items()
            if name is not None and (part != "label" or self._need_label)
        }

        def records() -> Iterator[tuple[int, dict[str, str]]]:
            if not header:
                yield first[0], {part: first[1][place] for part, place in places.items()}
            for number, values in fields:
                if len(values) != width:
                    raise self.error(number, f"{len(values)} columns, {width} expected")
                yield number, {part: values[place] for part, place in places.items()}

        self._records = records()

    def _choose(self, names: list[str], wanted: Columns) -> Columns:
        """The wanted columns, and the usual ones for those that nobody named."""
        chosen = wanted.or_else(usual_columns(names))
        needed = [("text", chosen.text), ("label", chosen.label)][: 2 if self._need_label else 1]
        for what, name in needed:
            if name is None:
                found = f"the columns are {', '.join(map(repr, names))}" if names else "there is no header"
                raise DataError(f"{self.name}: which column is the {what}? Give --{what}-column ({found})")
        return chosen

    def _place(self, name: str, names: list[str], width: int) -> int:
        if name in names:
            if names.count(name) > 1:
                raise DataError(f"{self.name}: {names.count(name)} columns are named {name!r}")
            return names.index(name)
        if re.fullmatch(r"[0-9]{1,20}", name):
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
                label = label.strip()
                if not label:
                    raise self.error(number, "the label is empty")
                if not is_unicode(label) or not label.isprintable():
                    raise self.error(number, "the label holds a tab, a line break or another control character")
            yield Row(number, text, pair, label)

    def _json_row(self, number: int, record: dict[str, Any]) -> dict[str, str]:
        row = {}
        for part, key in vars(self.columns).items():
            if key is None or (part == "label" and not self._need_label):
                continue
            if key not in record:
                raise self.error(number, f"no key {key!r}")
            value = record[key]
            if part == "label" and isinstance(value, (bool, int, float)):
                # true and false as JSON spells them, 1.0 as 1.
                whole = not isinstance(value, bool) and value == value // 1
                value = str(int(value)) if whole else json.dumps(value)
            if not isinstance(value, str):
                raise self.error(number, f"{key!r} is not a text{' or a number' if part == 'label' else ''}")
            row[part] = value
        return row


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; half a surrogate pair, which JSON can spell, can't."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_rows(table: Table) -> list[Row]:
    """All rows of a table; raises DataError, also when there is none."""
    rows = list(table)
    if not rows:
        raise DataError(f"{table.name}: no rows")
    return rows
