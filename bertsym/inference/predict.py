"""Predict the classes of texts: a few, a table, or a stream."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import Bundle
from bertsym.errors import DataError, UsageError
from bertsym.inference.classifier import as_trained, check_pair, open_classifier
from bertsym.inference.predictor import BATCH_SIZE, Predictor
from bertsym.text.features import encode_rows
from bertsym.text.tables import Row, Table, TableFormat
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
        check_pair(self.bundle, pairs is not None)
        if isinstance(texts, str) or isinstance(pairs, str):
            raise UsageError("predict takes a list of texts, not one text")
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts but {len(pairs)} second texts")
        rows = [Row(i + 1, text, pairs[i] if pairs is not None else None) for i, text in enumerate(texts)]
        for row in rows:
            if not row.text.strip() or (row.pair is not None and not row.pair.strip()):
                raise DataError(f"text {row.line} of {len(rows)} is empty")
        return list(self.predict_rows(rows, "the texts"))

    def predict_rows(self, rows: Iterable[Row], where: str) -> Iterator[Prediction]:
        """Predict rows as they come, in their order and in constant memory."""
        rows = iter(rows)
        while chunk := list(itertools.islice(rows, _CHUNK)):
            check_pair(self.bundle, chunk[0].pair is not None)
            features = encode_rows(chunk, self._tokenizer, where)
            for example, values in zip(features.examples, self._predictor(features)):
                probabilities = dict(zip(self.labels, map(float, values)))
                yield Prediction(self.labels[int(values.argmax())], probabilities, example.truncated)

    def predict_table(
        self, source: str | Path | BinaryIO, table_format: TableFormat = TableFormat()
    ) -> Iterator[Prediction]:
        """Predict the rows of a table or of a stream.

        A table has the header and the columns of the training table unless `table_format` says otherwise. A
        stream of which nothing is said has a text a line, or two texts with a tab between them.
        """
        if isinstance(source, (str, Path)) or table_format != TableFormat():
            table_format = as_trained(self.bundle, table_format)
            if not isinstance(source, (str, Path)) and table_format.kind is None:
                table_format = dataclasses.replace(table_format, kind="tsv")
        else:
            table_format = TableFormat("pairs" if self.bundle.signature.pair else "lines")
        table = Table(source, table_format, need_label=False)
        empty = True
        for prediction in self.predict_rows(table, table.name):
            empty = False
            yield prediction
        if empty and isinstance(source, (str, Path)):
            raise DataError(f"{table.name}: no rows")
