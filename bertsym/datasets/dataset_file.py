"""Read the description of a data set from a TOML file."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bertsym.datasets.columns import Columns
from bertsym.datasets.dataset import FORMATS, SPLITS, TASK_KINDS, DataSet, SplitLayout, Submission
from bertsym.errors import DataError
from bertsym.file_reader import read_bytes
from bertsym.json_reader import JsonValue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
D = TypeVar("D")

_KEYS = (
    *("kind", "description", "labels", "label_aliases", "drop_labels", "metrics", "positive_label", "format", "header"),
    *("skip_broken_rows", "short_rows", "columns", "files", "test", "submission"),
)
_COLUMNS = ("text", "pair", "label", "index")
_SUBMITTED = ("classification", "regression")  # kinds of task with one answer for each row
_SUBMISSION = ("file", "header", "labels", "decimals", "range")


def read_dataset(path: str | Path) -> DataSet:
    """Read the description of a data set; its name is that of the file, without ``.toml``.

    Raises DataError, which names the file and the key, for a file that is not a valid description.
    """
    try:
        text = read_bytes(path).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: byte {error.start}") from None
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid TOML: {error}") from None
    return _read(JsonValue(_plain(document), str(path), error=DataError), Path(path).stem)


def _read(document: JsonValue, name: str) -> DataSet:
    _check_keys(document, _KEYS)
    kind = document["kind"].choice(*TASK_KINDS)
    labels: tuple[str, ...] = _optional(document, "labels", _labels, ())
    layout = _read_layout(document, SplitLayout())
    return DataSet(
        name=name,
        kind=kind,
        description=_optional(document, "description", JsonValue.text, ""),
        layout=layout,
        test_layout=_optional(document, "test", lambda test: _read_layout(_checked(test, _TEST), layout), layout),
        format=_optional(document, "format", lambda value: value.choice(*FORMATS), None),
        files=_optional(document, "files", _read_files, {}),
        labels=labels,
        label_aliases=_optional(document, "label_aliases", lambda value: _aliases(value, labels), {}),
        drop_labels=_optional(document, "drop_labels", JsonValue.texts, ()),
        metrics=_optional(document, "metrics", lambda value: tuple(name.text() for name in value.elements(1)), ()),
        positive_label=_optional(document, "positive_label", lambda value: _one_of(value, labels, "labels"), None),
        skip_broken_rows=_optional(document, "skip_broken_rows", JsonValue.boolean, False),
        short_rows=_optional(document, "short_rows", JsonValue.boolean, False),
        submission=_optional(document, "submission", lambda value: _read_submission(value, kind, labels), None),
    )


_TEST = ("header", "columns")


def _read_layout(document: JsonValue, default: SplitLayout) -> SplitLayout:
    """Read header and columns; those that are not given are the default's."""
    header = _optional(document, "header", JsonValue.boolean, default.header)
    columns = {**vars(default.columns), "index": default.index}
    if "columns" in document:
        given = _checked(document["columns"], _COLUMNS)
        columns.update({part: _column(value) for part, value in given.items()})
    index = columns.pop("index")
    return SplitLayout(header, Columns(**columns), index)


def _column(value: JsonValue) -> str:
    """Read a header name, or a number from 1 as a string or an integer."""
    return value.text() if value.is_text else str(value.integer(1))


def _read_files(value: JsonValue) -> dict[str, tuple[str, ...]]:
    _check_keys(value, SPLITS)
    return {split: _paths(paths) for split, paths in value.items()}


def _paths(value: JsonValue) -> tuple[str, ...]:
    elements = [value] if value.is_text else value.elements(1)
    for element in elements:
        path = PurePosixPath(element.text())
        if path.is_absolute() or ".." in path.parts or "\0" in element.text() or not path.name:
            raise element.fault(f"{element.text()!r:.80} is not the path of a file below the data set's folder")
    return tuple(element.text() for element in elements)


def _labels(value: JsonValue) -> tuple[str, ...]:
    for number, element in enumerate(elements := value.elements(2)):
        label = element.text()
        if not label.isprintable() or label != label.strip() or not label:
            raise element.fault(f"{label!r:.80} is not a label: printable text without spaces around it")
        if label in value.raw[:number]:
            raise element.fault(f"the label {label!r:.80} is repeated")
    return tuple(element.text() for element in elements)


def _aliases(value: JsonValue, labels: tuple[str, ...]) -> dict[str, str]:
    if not labels:
        raise value.fault("needs the key labels, the class names")
    return {alias: _one_of(name, labels, "labels") for alias, name in value.items()}


def _read_submission(value: JsonValue, kind: str, labels: tuple[str, ...]) -> Submission:
    if kind not in _SUBMITTED:
        raise value.fault(f"the answers of {kind} are not labels or numbers; omit it, or use {' or '.join(_SUBMITTED)}")
    _check_keys(value, _SUBMISSION)
    written: dict[str, str] = {}
    if "labels" in value:
        written = {name: text.text() for name, text in value["labels"].items()}
    for name in written:
        if name not in labels:
            raise value["labels"].fault(f"{name!r:.80} is not one of the labels {', '.join(labels)}")
    header = _optional(value, "header", lambda cells: cells.elements(2, 2), None)
    limits = _optional(value, "range", lambda numbers: numbers.elements(2, 2), None)
    return Submission(
        value["file"].file_name(),
        ("index", "prediction") if header is None else (header[0].text(), header[1].text()),
        written,
        _optional(value, "decimals", lambda number: number.integer(0, 17), None),
        None if limits is None else (limits[0].number(), limits[1].number()),
    )


def _optional(document: JsonValue, key: str, read: Callable[[JsonValue], T], default: D) -> T | D:
    return read(document[key]) if key in document else default


def _one_of(value: JsonValue, names: Sequence[str], what: str) -> str:
    """Read a string that is one of the names; `what` says in a message what these are."""
    name = value.text()
    if name not in names:
        raise value.fault(f"{name!r:.80} is not one of {what} {', '.join(names)}{suggestion(name, names)}")
    return name


def _checked(value: JsonValue, keys: tuple[str, ...]) -> JsonValue:
    _check_keys(value, keys)
    return value


def _check_keys(value: JsonValue, keys: tuple[str, ...]) -> None:
    for key, inner in value.items():
        if key not in keys:
            raise inner.fault(f"unknown key; the keys are {', '.join(keys)}{suggestion(key, keys)}")


def suggestion(name: str, names: Sequence[str]) -> str:
    """Return a question that suggests the closest name, or an empty string."""
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _plain(value: Any) -> Any:
    """Turn dates and times of TOML into text; the other types of TOML are those of JSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, bool, int, float)) else str(value)
