"""Descriptions of data sets: which files and columns they have, and how predictions are judged and submitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bertsym.datasets.columns import Columns
from bertsym.errors import DataError, UsageError

#: kinds of task, as named in signatures, options and the library -> their data; a command may support only some
TASK_KINDS = {
    "classification": "any table of texts or text pairs, with one label for each",
    "multilabel": "any table of texts or text pairs, with any number of labels for each",
    "regression": "any table of texts or text pairs, with a number for each",
    "tagging": "sentences of words, with a tag for each word",
    "qa": "contexts and questions, with an answer in the context",
    "masked_lm": "texts with mask tokens; for predict only",
}
FORMATS = ("tsv", "csv", "jsonl")
CONLL_SUFFIXES = (".conll", ".conll2003", ".bio", ".iob", ".iob2", ".iobes")  #: of files that only tagging reads
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Submission:
    """The file of predictions that a benchmark's server accepts: a TSV table of index and prediction."""

    file: str  #: name that the server expects
    header: tuple[str, str] = ("index", "prediction")
    labels: Mapping[str, str] = field(default_factory=dict)  #: class name -> how it is written, if that differs
    decimals: int | None = None  #: of numbers
    range: tuple[float, float] | None = None  #: smallest and largest number


@dataclass(frozen=True)
class SplitLayout:
    """How the file of one split is read."""

    header: bool = True
    columns: Columns = Columns()
    index: str | None = None  #: column with the number of the row, which a submission repeats


@dataclass(frozen=True)
class DataSet:
    """A kind of task, or a data set of that kind.

    `metrics` are names of ``bertsym.metrics``; the first metric decides which parameters are kept. `positive_label` is
    the positive class of F1; None means the last of two labels.
    """

    name: str
    kind: str  #: one of TASK_KINDS
    description: str
    layout: SplitLayout = SplitLayout()  #: of the training and dev files
    test_layout: SplitLayout = SplitLayout()
    format: str | None = None  #: one of FORMATS; None: by the suffix of the file
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: split -> paths in its folder, the usual first
    labels: tuple[str, ...] = ()  #: class names in order; empty: the sorted labels of the training table
    label_aliases: Mapping[str, str] = field(default_factory=dict)  #: label in the files -> class name
    drop_labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()  #: empty: those of the kind
    positive_label: str | None = None
    skip_broken_rows: bool = False  #: whether training and dev rows that can't be read are left out
    short_rows: bool = False  #: whether a row may end after the last column that is read
    submission: Submission | None = None

    @property
    def columns(self) -> Columns:
        """Columns of the training and dev files."""
        return self.layout.columns

    @property
    def dataset(self) -> str | None:
        """Name of the data set; None for a kind of task, which takes any table."""
        return self.name if self.name != self.kind else None

    def find_file(self, folder: str | Path, split: str) -> Path:
        """Return the file of a split, one of SPLITS, in the folder of the data set.

        Raises UsageError for a kind of task, and for a data set that names no file of the split; DataError if the
        folder does not have the file.
        """
        if self.dataset is None:
            raise UsageError(f"{self.name} is a kind of task, but --data-dir needs a data set as --task, such as sst-2")
        names = self.files.get(split, ())
        if not names:
            found = ", ".join(self.files) or "none"
            raise UsageError(f"the data set {self.name} has no {split} file; its splits: {found}")
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: not a folder")
        for name in names:
            if (path := Path(folder) / name).is_file():
                return path
        raise DataError(f"{folder}: no {split} file of {self.name}; looked for {', '.join(names)}")

    def layout_of(self, split: str) -> SplitLayout:
        """Return how the file of a split is read."""
        return self.test_layout if split == "test" else self.layout
