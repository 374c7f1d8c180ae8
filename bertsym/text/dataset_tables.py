"""Formats of the tables of data sets."""

from __future__ import annotations

import dataclasses

from bertsym.datasets.dataset import DataSet
from bertsym.text.table_format import Layout, TableFormat


def format_of_dataset(given: TableFormat, dataset: DataSet, split: str | None) -> TableFormat:
    """Return the format in which a data set's file of a split is read; what is `given` wins.

    With `split` None, for a file of an unknown split, format, header and columns are left open.
    """
    formatted = dataclasses.replace(
        given,
        drop_labels=(*given.drop_labels, *dataset.drop_labels),
        label_aliases={**dataset.label_aliases, **given.label_aliases},
        short_rows=given.short_rows or dataset.short_rows,
    )
    if split is None:
        return formatted
    layout = dataset.layout_of(split)
    return dataclasses.replace(
        formatted, kind=given.kind or dataset.format, trained=Layout(layout.columns, layout.header)
    )
