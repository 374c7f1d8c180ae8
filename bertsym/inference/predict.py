"""Predict the classes of texts: a few, a table, or a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import Bundle
from bertsym.errors import DataError, UsageError
from bertsym.inference.classifier import open_classifier, wanted_columns
from bertsym.inference.predictor import BATCH_SIZE, Predictor
from bertsym.text.features import encode_rows
from bertsym.text.tables import Row, Table, TableFormat
from bertsym.text.tasks import Columns
from bertsym.text.tokenizer import Tokenizer

_CHUNK = 1024  # rows that are sorted by length and held in memory at a time


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the probability of each label in the order of the signature."""

    label: str
    probabilities: dict[str, float]
    truncated: bool = False


class Classifier:
    """A fine-tuned bundle that is kept open for predictions; raises ModelError unless it is one."""

    def __init__(self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE) -> None:
        self.bundle: Bundle = open_classifier(prefix)
        signature = self.bundle.signature
        self.labels = signature.labels
        self._tokenizer = Tokenizer(self.bundle.vocabulary(), signature.tokenizer, signature.max_length)
        self._predictor = Predictor.from_bundle(self.bundle, device, batch_size)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predict texts, or pairs if the classifier was trained on pairs.

        Raises UsageError for the wrong one of the two, DataError for an empty text.
        """
        self.check_pair(pairs is not None)
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts but {len(pairs)} second texts")
        seconds: Sequence[str | None] = pairs if pairs is not None else [None] * len(texts)
        rows = [Row(number, text, pair) for number, (text, pair) in enumerate(zip(texts, seconds), 1)]
        for row in rows:
            if not row.text.strip() or (row.pair is not None and not row.pair.strip()):
                raise DataError(f"text {row.line} of {len(rows)} is empty")
        return list(self.predict_rows(rows, "the texts"))

    def check_pair(self, has_pair: bool) -> None:
        """Raise UsageError if the inputs are pairs and the classifier's are not, or the other way round."""
        if has_pair and not self.bundle.signature.pair:
            raise UsageError("this classifier was trained on single texts: no second text")
        if not has_pair and self.bundle.signature.pair:
            raise UsageError("this classifier was trained on pairs of texts: give the second text too")

    def predict_rows(self, rows: Iterable[Row], where: str) -> Iterator[Prediction]:
        """Predict rows as they come, in their order and in constant memory."""
        rows = iter(rows)
        while chunk := list(itertools.islice(rows, _CHUNK)):
            self.check_pair(chunk[0].pair is not None)
            features = encode_rows(chunk, self._tokenizer, where)
            for example, values in zip(features.examples, self._predictor(features)):
                probabilities = dict(zip(self.labels, map(float, values)))
                yield Prediction(self.labels[int(values.argmax())], probabilities, example.truncated)

    def predict_table(
        self, source: str | Path | BinaryIO, table_format: TableFormat = TableFormat()
    ) -> Iterator[Prediction]:
        """Predict the rows of a table or of a stream.

        A file has the columns of the training table unless `table_format` names others; a stream without
        named columns has no header: the text, and after a tab the second text.
        """
        if isinstance(source, (str, Path)):
            columns = wanted_columns(self.bundle, table_format.columns)
            table_format = TableFormat(table_format.kind, table_format.header, columns)
        elif table_format.kind in (None, "tsv") and table_format.columns == Columns():
            columns = Columns("1", "2" if self.bundle.signature.pair else None)
            table_format = TableFormat("tsv", header=False, columns=columns)
        elif table_format.columns == Columns():
            table_format = TableFormat(table_format.kind, table_format.header, wanted_columns(self.bundle, Columns()))
        table = Table(source, table_format, need_label=False)
        yield from self.predict_rows(table, table.name)
