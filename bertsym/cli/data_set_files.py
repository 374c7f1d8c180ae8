"""The files of a data set for ``predict``: the table to read, and the submission to write."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import collected, option
from bertsym.cli.options import FILE
from bertsym.cli.output import note
from bertsym.cli.table_options import data_dir_option, split_option, task_option
from bertsym.cli.texts import Texts
from bertsym.errors import DataError, UsageError

if TYPE_CHECKING:
    from bertsym.datasets.dataset import DataSet
    from bertsym.inference.task_bundle import TaskBundle
    from bertsym.tasks.submission import SubmissionLines
    from bertsym.tasks.task import Task
    from bertsym.text.table_format import TableFormat


@dataclass(frozen=True)
class DataSetFiles:
    """Which file of which data set is read, and whether a submission is written."""

    task: str | None
    data_dir: str | None
    split: str
    submission: str | None

    def refuse(self, **others: Any) -> None:
        """Raise UsageError if another option is given with ``--submission``."""
        for name, value in others.items():
            if self.submission is not None and value:
                raise click.UsageError(f"--submission writes its own format: omit --{name.replace('_', '-')}.")

    def find(self, model: str, texts: Texts, table_format: TableFormat) -> tuple[Texts, TableFormat, DataSet | None]:
        """Find the table of texts and how it is read; without a data set, as they were given."""
        from bertsym.inference.task_bundle import TaskBundle

        if self.task is None and self.data_dir is None and self.submission is None:
            return texts, table_format, None
        if texts.text is not None:
            raise click.UsageError("--text has no data set: omit --task, --data-dir and --submission.")
        if texts.file in (None, "-") and self.data_dir is None:
            option = "--task" if self.submission is None else "--submission"
            raise click.UsageError(f"{option} needs FILE or --data-dir.")
        opened = TaskBundle.open(model, "predict")
        source, table_format, dataset = opened.find_table(
            texts.file, table_format, self.task, self.data_dir, self.split
        )
        assert isinstance(source, (str, Path))
        if self.submission is not None:
            table_format = self._with_index(opened, source, table_format, dataset)
        return dataclasses.replace(texts, file=str(source)), table_format, dataset

    def _with_index(
        self, opened: TaskBundle, source: str | Path, table_format: TableFormat, dataset: DataSet
    ) -> TableFormat:
        """Let the index of each row be kept, where the table has one."""
        from bertsym.text.tables import Table

        if dataset.submission is None:
            raise UsageError(
                f"the task {dataset.name} describes no submission: give a data set such as sst-2 as --task"
            )
        index = dataset.layout_of(self.split).index
        if index is None:
            return table_format
        indexed = dataclasses.replace(table_format, kept=(index,))
        try:
            Table(source, opened.reading(indexed).table_format, need_label=False).close()
        except DataError:
            return table_format
        return indexed

    def target(self, dataset: DataSet | None) -> str | None:
        """Return the file to write; in a folder it has the name that the server expects."""
        if self.submission is None or dataset is None or dataset.submission is None:
            return None
        path, name = Path(self.submission), dataset.submission.file
        if path.is_dir():
            return str(path / name)
        if path.name != name:
            note(f"{path}: the server expects the name {name}")
        return str(path)

    def lines(self, dataset: DataSet | None, task: Task) -> SubmissionLines | None:
        """Return the format of the submission, where one is written."""
        from bertsym.tasks.submission import SubmissionLines

        if self.submission is None or dataset is None or dataset.submission is None:
            return None
        return SubmissionLines(dataset.submission, task)


data_set_options = collected(
    "data",
    DataSetFiles,
    task_option(),
    data_dir_option("that --task names, or that MODEL was trained on, instead of FILE"),
    split_option("test"),
    option(
        "--submission",
        group="Output",
        metavar="FILE",
        type=FILE,
        help="Write the file that the benchmark's server accepts (GLUE: index and prediction), instead of printing "
        "predictions. If FILE is a folder, the file in it gets the name that the server expects.",
    ),
)
