"""Kinds of task and known data sets by their names."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from bertsym.datasets.dataset import TASK_KINDS, DataSet
from bertsym.datasets.dataset_file import read_dataset, suggestion
from bertsym.errors import UsageError

_FOLDER = Path(__file__).parent / "known"

GLUE = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "mnli-mm", "qnli", "rte", "wnli", "ax")
#: names of the known data sets, each a file in the folder ``known``
KNOWN = (*GLUE, "snli", "xnli", "lcqmc", "chnsenticorp")


def find_dataset(name: str) -> DataSet:
    """Return a kind of task, a known data set, or the data set that a file ``NAME.toml`` describes.

    Raises UsageError for an unknown name, and for a file that has the name of one of the others; DataError for a file
    that is not a valid description.
    """
    if name.endswith(".toml"):
        stem = Path(name).stem
        if stem in KNOWN or stem in TASK_KINDS:
            raise UsageError(f"{name}: {stem} is the name of a known task or data set; give the file another name")
        return read_dataset(name)
    if name in TASK_KINDS:
        return DataSet(name, name, TASK_KINDS[name])
    if name not in KNOWN:
        names = (*TASK_KINDS, *KNOWN)
        close = suggestion(name.lower(), names)
        raise UsageError(f"task {name!r} is not one of {', '.join(names)}, or a file NAME.toml{close}")
    return _known(name)


def known_datasets() -> list[DataSet]:
    """Return the known data sets."""
    return [_known(name) for name in KNOWN]


def dataset_text(name: str) -> str:
    """Return the TOML text of a known data set or of a file ``NAME.toml``; raises the errors of `find_dataset`."""
    find_dataset(name)
    if name in TASK_KINDS:
        raise UsageError(f"{name} is a kind of task, which takes any table; data sets are {', '.join(KNOWN)}")
    return Path(name if name.endswith(".toml") else _FOLDER / f"{name}.toml").read_text(encoding="utf-8")


#: keys of JSON files other than tables, and the kind of task that reads them
_KEYS_OF_KINDS = (
    (("tokens", "tags"), "tagging"),
    (("tokens", "ner_tags"), "tagging"),
    (("words", "tags"), "tagging"),
    (("context", "answers"), "qa"),
    (("context", "answer"), "qa"),
    (("version", "data"), "qa"),  # SQuAD's JSON
)


def tasks_with_columns(names: Sequence[str], labelled: bool) -> list[str]:
    """Return the known data sets whose columns of texts, and of the label if `labelled`, are all among `names`.

    Kinds of task with other files than tables are returned by the keys of these.
    """
    found = [*dict.fromkeys(kind for keys, kind in _KEYS_OF_KINDS if {*keys} <= {*names})]
    for dataset in known_datasets():
        text, pair, label = dataset.columns.text, dataset.columns.pair, dataset.columns.label
        used = [text, *([pair] if pair is not None else []), *([label] if labelled else [])]
        if all(column in names for column in used):
            found.append(dataset.name)
    return found


@functools.cache
def _known(name: str) -> DataSet:
    return read_dataset(_FOLDER / f"{name}.toml")
