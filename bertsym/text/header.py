"""Whether the first line of a table is a header or a row, and whether it is read as such."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from bertsym.datasets.columns import USUAL_LABELS, USUAL_PAIRS, USUAL_TEXTS, Columns
from bertsym.errors import DataError

# With the names that only the files of known data sets have.
_TEXT_NAMES = frozenset({*USUAL_TEXTS, *(name for pair in USUAL_PAIRS for name in pair)}) | frozenset(
    {"comment", "content", "tweet", "#1 string", "#2 string"}
)
_LABEL_NAMES = frozenset({*USUAL_LABELS, "is_duplicate", "score", "quality"})
_OTHER_NAMES = frozenset({"index", "idx", "id", "guid", "pairid", "#1 id", "#2 id", "genre", "split", "source"})
_NAMES = _TEXT_NAMES | _LABEL_NAMES | _OTHER_NAMES

_NAME_WORDS, _NAME_BYTES = 3, 36  # a text beyond either does not look like the name of a column


@dataclass(frozen=True)
class FirstLine:
    """The first line of a TSV or CSV table, and how it is read."""

    line: int
    cells: Sequence[str]
    is_header: bool  #: whether it is read as one
    is_given: bool  #: whether ``--header`` or ``--no-header`` was given, not a default or the training tables
    places: Mapping[str, int]  #: part (text, pair, label) -> index of its column
    named: Collection[str]  #: parts whose column is given by name
    trained_names: Columns = Columns()  #: names that numbered columns had in the training table

    def cell(self, part: str) -> str | None:
        """The cell of a part of the row, stripped; None where the table has no such column."""
        return self.cells[self.places[part]].strip() if part in self.places else None

    def texts(self) -> list[str]:
        """The cells of the texts, stripped."""
        return [self.cells[self.places[part]].strip() for part in ("text", "pair") if part in self.places]


def shown_cells(cells: Sequence[str]) -> str:
    """Cells for a message: a few, each shortened."""
    more = f" and {len(cells) - 12} more" if len(cells) > 12 else ""
    return ", ".join(repr(cell if len(cell) <= 30 else f"{cell[:30]}...") for cell in cells[:12]) + more


def is_number(label: str) -> bool:
    """Whether a label is a decimal number."""
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", label) is not None


def has_usual_names(cells: Sequence[str]) -> bool:
    """Whether one of the cells is a name that headers usually have."""
    return any(cell.strip().casefold() in _NAMES for cell in cells)


def check_first_line(
    first: FirstLine, name: str, classes: Mapping[str, int], labelled: bool, warn: Callable[[str], object]
) -> None:
    """Compare the first line of the table `name` with what it is read as.

    `classes` are the known class names, with the numbers of their rows in the rest of a training table; `labelled` says
    whether labels are read. Raises DataError where the line is certainly read as the wrong one of the two, or where a
    column has moved since the training; `warn` gets a line where that can't be decided.
    """
    where = f"{name}, line {first.line}"
    if first.is_header:
        _check_header(first, where, classes, labelled, warn)
        _check_trained_names(first, name, warn)
    else:
        _check_row(first, where, classes, labelled, warn)


def _check_header(
    first: FirstLine, where: str, classes: Mapping[str, int], labelled: bool, warn: Callable[[str], object]
) -> None:
    """A row that is read as the header would be missing from the table.

    In a table without labels only a known column name proves a header: a line without one is an error.
    """
    texts, label = first.texts(), first.cell("label")
    if first.named or any(text.casefold() in _TEXT_NAMES for text in texts) or _counts_columns(first.cells):
        return
    trained_names = {part: name for part, name in vars(first.trained_names).items() if name is not None}
    if any(first.cell(part) == name for part, name in trained_names.items()):
        return
    longest = max(texts, key=len, default="")
    is_text = len(longest.split()) > _NAME_WORDS or len(longest.encode()) > _NAME_BYTES
    is_class = label is not None and label in classes
    found = [f"its label {label!r} is a class"] if is_class else []
    found += [f"its text is {shown_cells([longest])}"] if is_text else []
    has_known_name = has_usual_names(first.cells) or not {cell.strip() for cell in first.cells}.isdisjoint(
        trained_names.values()
    )
    must_choose = len(found) == 2 or not (labelled or has_known_name)
    if must_choose and not found:
        found = [f"no cell of it is a usual column name: {shown_cells(first.cells)}"]
    if not found:
        return
    reads = f"{where}: read as the header, but {' and '.join(found)}"
    if must_choose and not first.is_given:
        raise DataError(f"{reads}; give --no-header if it is a row, --header if it is not")
    if len(found) == 2 or not first.is_given:
        warn(f"warning: {reads}; give --no-header if it is a row")


def _counts_columns(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..., as pandas names columns without names."""
    numbers = [cell.strip() for cell in cells]
    # The index of a data frame has no name.
    numbers = numbers[1:] if numbers and not numbers[0] else numbers
    return any(numbers == [str(start + i) for i in range(len(numbers))] for start in (0, 1))


def _check_trained_names(first: FirstLine, name: str, warn: Callable[[str], object]) -> None:
    """A numbered column with another name than in the training table may be another column."""
    for part, trained in vars(first.trained_names).items():
        if trained is None or part not in first.places or first.cell(part) == trained:
            continue
        place, cells = first.places[part], [cell.strip() for cell in first.cells]
        differs = f"{name}: column {place + 1} is {shown_cells([cells[place]])} here, and was {trained!r} in training"
        if trained in cells:
            raise DataError(f"{differs}, which is column {cells.index(trained) + 1} here; give --{part}-column")
        warn(f"warning: {differs}; give --{part}-column if it is not the {part}")


def _check_row(
    first: FirstLine, where: str, classes: Mapping[str, int], labelled: bool, warn: Callable[[str], object]
) -> None:
    """A header that is read as a row would be an example of its own, and its label a class."""
    texts, label = first.texts(), first.cell("label")
    if label is not None and label in classes:
        return
    if all(text.casefold() in _TEXT_NAMES for text in texts):
        if not _is_certain(first, classes):
            warn(f"warning: {where}: {shown_cells(first.cells)} is read as a row; give --header if it is a header")
        elif not first.is_given:
            raise DataError(
                f"{where}: {shown_cells(first.cells)} is a header, and the training tables had none; give --header, or "
                "--no-header to read it as a row"
            )
        elif labelled:
            raise DataError(
                f"{where}: {shown_cells(first.cells)} is a header, but --no-header reads it as a row; omit --no-header "
                "or remove the line"
            )
        else:
            warn(f"warning: {where}: {shown_cells(first.cells)} is a header, and --no-header reads it as a row")
    elif label is not None and classes and min(classes.values()) > 1:
        warn(f"warning: {where}: no other row has the label {label!r}; give --header if the line is a header")


def warn_of_header_in_stream(cells: Sequence[str], where: str, warn: Callable[[str], object]) -> None:
    """Warn of a first line that looks like a header where each line is taken as texts."""
    names = _NAMES if len(cells) > 1 else _TEXT_NAMES
    if all(cell.strip().casefold() in names for cell in cells):
        warn(f"warning: {where}: {shown_cells(cells)} is read as a text; give --format tsv if it is a header")


def _is_certain(first: FirstLine, classes: Collection[str]) -> bool:
    """Whether a line whose texts are names of columns can't be a row: texts may be words such as ``question``."""
    label = first.cell("label")
    if label and label[0].isalpha() and classes and all(map(is_number, classes)):
        return True
    texts = {first.places[part] for part in ("text", "pair") if part in first.places}
    for place, cell in enumerate(cell.strip().casefold() for cell in first.cells):
        if cell in _NAMES and (place not in texts or re.search(r"[0-9_#]", cell)):
            return True
    return False
