"""Read tables row by row, with line numbers in errors: TSV in the format of GLUE, CSV, JSON Lines."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.datasets.columns import Columns, usual_columns
from bertsym.datasets.dataset import CONLL_SUFFIXES, FORMATS
from bertsym.datasets.registry import tasks_with_columns
from bertsym.errors import DataError, UsageError
from bertsym.text.delimited import split_csv, split_tsv
from bertsym.text.header import FirstLine, has_usual_names, shown_cells
from bertsym.text.json_lines import JsonObject, format_label, parse_object
from bertsym.text.label_sets import marked_labels, split_labels
from bertsym.text.lines import LineReader, is_unicode, without_end
from bertsym.text.table_format import Layout, TableFormat

_SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@dataclass(frozen=True)
class Row:
    """One example and the line on which it starts."""

    line: int
    text: str
    pair: str | None = None
    label: str | None = None  #: the cell of the label column
    kept: tuple[Any, ...] = ()  #: cells of ``TableFormat.kept``: strings, in JSON Lines any JSON values
    labels: tuple[str, ...] = ()  #: where a row has any number of labels


class Table:
    """The rows of one file or stream, read lazily.

    ``columns`` are known when the table is open (JSON Lines: after the first row); ``sha256`` is the digest of all
    bytes when the table is read. With `need_label` False the label column may be absent, and an empty line is an error.

    Raises DataError, which names the file and the line, if a row can't be read; UsageError for an unknown suffix.
    """

    def __init__(self, source: str | Path | BinaryIO, table_format: TableFormat, need_label: bool = True) -> None:
        self._lines = LineReader(source)
        self.name = self._lines.name
        self.need_label = need_label
        self.first_line: FirstLine | None = None  #: of a TSV or CSV table
        self.drop_labels = table_format.drop_labels
        self._label_aliases = table_format.label_aliases
        self._label_delimiter, self._label_columns = table_format.label_delimiter, table_format.label_columns
        self._short_rows = table_format.short_rows
        self._kept = table_format.kept
        self.header = table_format.trained.header if table_format.header is None else table_format.header
        try:
            self._kind = table_format.kind or self._kind_by_suffix()
            if self._kind not in (*FORMATS, "lines", "pairs"):
                raise UsageError(
                    f"{self.name}: {self._kind} is not the format of a table: give one of {', '.join(FORMATS)}"
                )
            lines = self._lines
            self._records: Iterable[tuple[int, Any]] = lines
            self.columns = table_format.columns.or_else(table_format.trained.columns)
            self._to_record: Callable[[int, Any], Mapping[str, Any]]
            if self._kind in ("lines", "pairs") and self._kept:
                raise UsageError(f"--keep-column {self._kept[0]}: --format {self._kind} has no columns")
            if self._kind == "jsonl":
                self._records = self._without_blanks(
                    (number, line if isinstance(line, DataError) else line.strip()) for number, line in lines
                )
                self._to_record = self._json_record
            elif self._kind == "pairs":
                self._to_record, self.columns = self._pair, Columns("1", "2")
            elif self._kind == "lines":
                self._to_record, self.columns = self._single, Columns("1")
            else:
                fields = split_tsv(lines) if self._kind == "tsv" else split_csv(lines, self.error)
                self._open_fields(self._without_blanks(fields), table_format)
        except BaseException:
            self.close()
            raise

    @property
    def layout(self) -> Layout:
        """Columns and header of this table, to read further tables in the same way."""
        first = self.first_line
        if first is None or not self.header:
            return Layout(self.columns, self.header)
        numbered = {part: first.cell(part) or None for part in first.places if part not in first.named}
        return Layout(self.columns, self.header, Columns(**numbered))

    @property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the bytes read so far."""
        return self._lines.sha256

    def close(self) -> None:
        """Close the file unless the caller opened it; a table that was read to its end is closed already."""
        self._lines.close()

    def _kind_by_suffix(self) -> str:
        suffix = Path(self.name).suffix.lower()
        if suffix not in _SUFFIXES:
            hint = "; sentences in CoNLL's format need --task tagging" if suffix in CONLL_SUFFIXES else ""
            raise UsageError(f"{self.name}: unknown suffix {suffix!r}; give --format {'|'.join(FORMATS)}{hint}")
        return _SUFFIXES[suffix]

    def error(self, line: int, why: str) -> DataError:
        """Return a DataError that names the file and the line."""
        return self._lines.error(line, why)

    def _single(self, number: int, line: str) -> dict[str, str]:
        return {"text": without_end(line)}

    def _pair(self, number: int, line: str) -> dict[str, str]:
        texts = without_end(line).split("\t")
        if len(texts) != 2:
            raise self.error(number, f"{len(texts)} columns, two texts expected; for a table give --format tsv")
        return {"text": texts[0], "pair": texts[1]}

    def _without_blanks(self, records: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Skip empty lines; without labels they are errors, because each line needs a prediction."""
        for number, record in records:
            if record or not self.need_label:
                yield number, record or self.error(number, "an empty line")

    def _open_fields(self, fields: Iterator[tuple[int, list[str] | DataError]], table_format: TableFormat) -> None:
        line, first = next(fields, (0, DataError(f"{self.name}: empty file")))
        if isinstance(first, DataError):
            raise first
        width = len(first)
        self.columns = self._choose(first if self.header else [], self.columns, first)
        places = {
            part: self._place(part, name, first)
            for part, name in vars(self.columns).items()
            if name is not None and (part != "label" or self.need_label)
        }
        kept = [self._place(None, name, first) for name in self._kept]
        label_places = {name: self._place("label", name, first) for name in self._label_columns if self.need_label}
        self.first_line = self._describe_first_line(line, first, places, table_format)

        least = 1 + max([*places.values(), *kept, *label_places.values()]) if self._short_rows else width

        def record(number: int, values: list[str]) -> dict[str, Any]:
            if len(values) != width and not least <= len(values) < width:
                raise self.error(number, f"{len(values)} columns, {width} expected")
            return {
                **{part: values[place] for part, place in places.items()},
                "kept": tuple(values[place] for place in kept),
                "marks": {name: values[place] for name, place in label_places.items()},
            }

        self._records = fields if self.header else itertools.chain([(line, first)], fields)
        self._to_record = record

    def _describe_first_line(
        self, line: int, cells: list[str], places: Mapping[str, int], table_format: TableFormat
    ) -> FirstLine:
        columns, trained, known = vars(self.columns), vars(table_format.trained.names), dict(places)
        label = self.columns.label
        if not self.need_label and label is not None:
            # A label that is not read still shows whether the first line is a header.
            with contextlib.suppress(DataError):
                known["label"] = self._place("label", label, cells)
        numbered = {part: name for part, name in trained.items() if vars(table_format.columns)[part] is None}
        return FirstLine(
            line,
            cells,
            self.header,
            table_format.header is not None,
            known,
            {part for part in known if self.header and columns[part] in cells}
            | {name for name in self._label_columns if self.header and name in cells},
            Columns(**{part: name if part in places else None for part, name in numbered.items()}),
        )

    def _choose(self, names: list[str], wanted: Columns, first: Sequence[str] | None = None) -> Columns:
        """Return the wanted columns; columns that are not named are found by their usual names."""
        chosen = wanted.or_else(usual_columns(names))
        if self._label_columns:
            chosen = dataclasses.replace(chosen, label=None)
        needed = [("text", chosen.text), ("label", chosen.label)][: 2 if self._reads_label else 1]
        for what, name in needed:
            if name is None:
                found = f"the columns are {shown_cells(names)}" if names else "there is no header"
                hint = "" if first is None else self._header_hint(first)
                hint = self._dataset_hint(names) or hint
                raise DataError(f"{self.name}: which column is the {what}? Give --{what}-column ({found}){hint}")
        return chosen

    @property
    def _reads_label(self) -> bool:
        """Whether a label column is read."""
        return self.need_label and not self._label_columns

    def _place(self, part: str | None, name: str, first: list[str]) -> int:
        """Return the index of a column; `part` is what it has of a row: text, pair or label."""
        names = first if self.header else []
        if name in names:
            if names.count(name) > 1:
                raise DataError(f"{self.name}: {names.count(name)} columns are named {name!r}: give its number, from 1")
            return names.index(name)
        if re.fullmatch(r"[0-9]{1,20}", name):
            if 1 <= int(name) <= len(first):
                return int(name) - 1
            found = f"no column {name}, there are {len(first)}{f': {shown_cells(names)}' if names else ''}"
        else:
            columns = f"{shown_cells(names)}" if names else f"{len(first)}, without a header"
            found = f"no column {name!r} (the columns are {columns})"
        known = self._dataset_hint(names) if part else ""
        raise DataError(f"{self.name}: {found}{known or self._header_hint(first, part)}")

    def _dataset_hint(self, names: Sequence[str]) -> str:
        """Return a hint that names the known data sets, or kinds of task, whose columns these are, or nothing."""
        known = " or ".join(tasks_with_columns(names, self.need_label))
        return f"; these are the columns of {known}: give --task" if known else ""

    def _header_hint(self, first: Sequence[str], part: str | None = None) -> str:
        """Return a hint for a missing column if the header may be the reason, else an empty string."""
        looks_like_header = has_usual_names(first)
        if len(first) == 1 and not self.need_label and Path(self.name).suffix.lower() == ".txt":
            return "; a .txt file is read as a table: if it has one text per line, give --format lines"
        if self.header and not looks_like_header:
            return "; if the first line is a row, give --no-header and column numbers"
        if not self.header and (looks_like_header or vars(self.columns)[part or "text"] in first):
            more = f" and --{part}-column" if part and vars(self.columns)[part] not in first else ""
            return f"; the first line is {shown_cells(first)}: give --header{more}"
        return ""

    def __iter__(self) -> Iterator[Row]:
        for row in self.each():
            if isinstance(row, DataError):
                raise row
            yield row

    def each(self) -> Iterator[Row | DataError]:
        """Yield the rows; the error of a row that can't be read takes its place, and reading continues.

        Raises DataError if the table as a whole can't be read.
        """
        try:
            for number, record in self._records:
                try:
                    row: Row | DataError = self._row(number, record)
                except DataError as error:
                    row = error
                yield row
        finally:
            self.close()

    def _row(self, number: int, value: Any) -> Row:
        if isinstance(value, DataError):
            raise value
        record = self._to_record(number, value)
        text, pair = record["text"], record.get("pair")
        for what, value in (("text", text), ("second text", pair)):
            if value is not None and not value.strip():
                raise self.error(number, f"the {what} is empty")
            if value is not None and not is_unicode(value):
                raise self.error(number, f"the {what} is not valid Unicode")
        try:
            label, labels = self._labels(record)
        except ValueError as error:
            raise self.error(number, str(error)) from None
        return Row(number, text, pair, label, record.get("kept", ()), labels)

    def _labels(self, record: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
        """Return the cell of the label column, and the labels where there is any number of them.

        Raises ValueError with a message.
        """
        cell = record.get("label")
        if self._label_columns:
            return None, marked_labels(record.get("marks", {}))
        if cell is None:
            return None, ()
        if self._label_delimiter is not None:
            labels = split_labels(cell, self._label_delimiter)
            label = cell.strip() if isinstance(cell, str) else None
        else:
            label, labels = cell.strip(), ()
            if not label:
                raise ValueError("the label is empty")
        for each in (*labels, *([label] if label else [])):
            if not is_unicode(each) or not each.isprintable():
                raise ValueError("the label holds a tab, a line break or another control character")
        aliases = self._label_aliases
        return aliases.get(label, label) if label else label, tuple(aliases.get(each, each) for each in labels)

    def _json_record(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = parse_object(line)
        except ValueError as error:
            raise self.error(number, str(error)) from None
        if self.columns.text is None or (self.columns.label is None and self._reads_label):
            self.columns = self._choose(list(record), self.columns)
        row: dict[str, Any] = {"kept": tuple(self._kept_value(number, record, key) for key in self._kept)}
        if self._label_columns and self.need_label:
            absent = next((key for key in self._label_columns if key not in record), None)
            if absent is not None:
                raise self.error(number, f"no key {absent!r}")
            row["marks"] = {key: record[key] for key in self._label_columns}
        for part, key in vars(self.columns).items():
            if key is None or (part == "label" and not self._reads_label):
                continue
            if key not in record:
                hint = f" (JSON Lines have no numbered columns: give --{part}-column KEY)" if key.isdigit() else ""
                raise self.error(number, f"no key {key!r}{hint}")
            if key in record.repeated:
                raise self.error(number, f"the key {key!r} is repeated")
            value = record[key]
            if part == "label" and isinstance(value, (bool, int, float)):
                try:
                    value = format_label(value)
                except ValueError as error:
                    raise self.error(number, str(error)) from None
            is_list = part == "label" and self._label_delimiter is not None and isinstance(value, list)
            if not isinstance(value, str) and not is_list:
                kinds = "a string" if part != "label" else "a string or a number"
                kinds += " or a list" if part == "label" and self._label_delimiter is not None else ""
                raise self.error(number, f"{key!r} is not {kinds}")
            row[part] = value
        return row

    def _kept_value(self, number: int, record: JsonObject, key: str) -> Any:
        """Return a value that is copied to the output; raises DataError for one that has no JSON text in UTF-8."""
        if key not in record:
            raise self.error(number, f"no key {key!r}")
        try:
            writable = is_unicode(json.dumps(record[key], ensure_ascii=False, allow_nan=False))
        except ValueError:
            writable = False
        if not writable:
            raise self.error(number, f"the value of {key!r} can't be copied: it is not finite or not valid Unicode")
        return record[key]


def count_rows(path: str | Path, table_format: TableFormat) -> int | None:
    """Count the rows of a file without labels by its lines; None if only reading it shows their number."""
    kind = table_format.kind or _SUFFIXES.get(Path(path).suffix.lower())
    if kind not in ("tsv", "jsonl", "lines", "pairs") or not os.path.isfile(path):
        return None
    header = table_format.trained.header if table_format.header is None else table_format.header
    lines, last = 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            lines, last = lines + block.count(b"\n"), block[-1:]
    return max(0, lines + (last != b"\n") - (kind == "tsv" and header))
