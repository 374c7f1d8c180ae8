"""How a table is read: its format, header and columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from bertsym.datasets.columns import Columns


@dataclass(frozen=True)
class Layout:
    """Columns and header of the training tables."""

    columns: Columns = Columns()
    header: bool = True
    names: Columns = Columns()  #: header names of the columns that are given by number


@dataclass(frozen=True)
class TableFormat:
    """Options for reading a table.

    ``kind`` is ``tsv``, ``csv``, ``jsonl``, ``lines`` (one text per line) or ``pairs`` (two texts per line, separated
    by a tab); None chooses by the suffix of the file. If ``header`` or a column is None, that of ``trained`` applies,
    by default a header and columns with usual names. Rows whose label is in ``drop_labels`` are left out.
    """

    kind: str | None = None
    header: bool | None = None
    columns: Columns = Columns()
    drop_labels: tuple[str, ...] = ()
    trained: Layout = Layout()
    label_aliases: Mapping[str, str] = field(default_factory=dict)  #: label in the table -> label that is read
    short_rows: bool = False  #: whether a row may end after the last column that is read
    kept: tuple[str, ...] = ()  #: columns, by name or number, whose cells `Row.kept` has
    label_delimiter: str | None = None  #: between the labels of a row; None: a row has one label
    label_columns: tuple[str, ...] = ()  #: a column of 0 and 1 for each label, in place of the label column

    def of_stream(self, lines: str) -> TableFormat:
        """Return the format of a stream: `lines`, the kind ``lines`` or ``pairs``, unless one is given; then TSV.

        What the model's signature and data set say is not given by the user.
        """
        described = TableFormat()
        given = dataclasses.replace(
            self,
            drop_labels=described.drop_labels,
            trained=described.trained,
            label_aliases=described.label_aliases,
            short_rows=described.short_rows,
        )
        if given == described:
            return TableFormat(lines)
        return self if self.kind is not None else dataclasses.replace(self, kind="tsv")
