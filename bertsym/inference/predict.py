"""Prediction of classes for texts, tables and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import Bundle
from bertsym.errors import DataError
from bertsym.inference.bundle_tokenizer import BundleTokenizer
from bertsym.inference.classifier import open_classifier
from bertsym.inference.engine_predictor import open_predictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.prefetch import prefetch
from bertsym.text.features import Features
from bertsym.text.tables import TableFormat
from bertsym.text.tokenizer import Encoded


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the probability of each label in the signature's order."""

    label: str
    probabilities: dict[str, float]
    truncated: bool = False


class Classifier:
    """A fine-tuned bundle, opened for prediction; raises ModelError if `prefix` is not a trained classifier."""

    def __init__(self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE) -> None:
        self.bundle: Bundle = open_classifier(prefix, "predict")
        self.class_names = self.bundle.signature.class_names
        self._tokenizer = BundleTokenizer(self.bundle.signature, self.bundle)
        self._predictor = open_predictor(self.bundle, device, batch_size)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predict texts, or text pairs.

        Raises UsageError for pairs if the classifier was trained on single texts, and vice versa; DataError for an
        empty text.
        """
        encoded = (features.examples for features in self._tokenizer.encode(texts, pairs))
        return [prediction for prediction in self._predict(encoded) if isinstance(prediction, Prediction)]

    def predict_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Prediction]:
        """Yield the predictions for the rows of a table or stream in order, in constant memory.

        Like `predict_each`, but raises DataError for an unreadable row, after the predictions of the rows before it.
        """
        for prediction in self.predict_each(source, table_format, warn):
            if isinstance(prediction, DataError):
                raise prediction
            yield prediction

    def predict_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Prediction | DataError]:
        """Yield for each row its prediction, or the error of an unreadable row, which names the line.

        Reads rows and raises errors of the table as `BundleTokenizer.encode_each` does. Rows are tokenized while
        earlier rows are predicted.
        """
        return self._predict(prefetch(self._tokenizer.encode_each(source, table_format, warn)))

    def _predict(self, encoded: Iterable[Sequence[Encoded | DataError]]) -> Iterator[Prediction | DataError]:
        for chunk in encoded:
            features = Features([example for example in chunk if isinstance(example, Encoded)])
            outputs = iter(self._predictor(features) if len(features) else ())
            for example in chunk:
                if isinstance(example, DataError):
                    yield example
                    continue
                values = next(outputs)
                probabilities = dict(zip(self.class_names, map(float, values)))
                yield Prediction(self.class_names[int(values.argmax())], probabilities, example.truncated)
