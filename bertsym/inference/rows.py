"""Reading a table for a classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bertsym.bundle import Bundle
from bertsym.errors import DataError
from bertsym.inference.classifier import check_pair, complete_table_format
from bertsym.text.reading import Rows, read_encoded_rows, warn_of_absent_labels
from bertsym.text.tables import Table, TableFormat


def read_encoded(
    bundle: Bundle,
    path: str | Path,
    table_format: TableFormat,
    labelled: bool,
    on_bad_row: Callable[[DataError], object] | None = None,
    warn: Callable[[str], object] = lambda text: None,
) -> Rows:
    """Read and encode all rows of a table, with their classes if it is `labelled`; raises DataError and UsageError.

    `on_bad_row` and `warn` are passed to `text.reading.read_encoded_rows`.
    """
    signature = bundle.signature
    table = Table(path, complete_table_format(signature, table_format), need_label=labelled)
    tokenizer = bundle.tokenizer(signature.tokenizer, signature.max_length)
    rows = read_encoded_rows(table, tokenizer, signature.class_names, on_bad_row, warn)
    check_pair(signature, table.columns.pair is not None)
    if labelled:
        warn_of_absent_labels(table_format.drop_labels, [rows], warn)
    return rows
