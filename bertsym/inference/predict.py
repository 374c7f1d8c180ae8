"""Predict the classes of texts: a few, a table, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bertsym.bundle import Bundle
from bertsym.errors import DataError
from bertsym.inference.ahead import ahead
from bertsym.inference.bundle_tokenizer import BundleTokenizer
from bertsym.inference.classifier import open_classifier
from bertsym.inference.predictor import BATCH_SIZE, Predictor
from bertsym.text.features import Features
from bertsym.text.tables import TableFormat
from bertsym.text.tokenizer import Encoded


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
        self.class_names = self.bundle.signature.class_names
        self._tokenizer = BundleTokenizer(self.bundle.signature, self.bundle)
        self._predictor = Predictor.from_bundle(self.bundle, device, batch_size)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predict texts, or pairs if the classifier was trained on pairs.

        Raises UsageError for the wrong one of the two, DataError for an empty text.
        """
        encoded = (features.examples for features in self._tokenizer.encode(texts, pairs))
        return [prediction for prediction in self._predict(encoded) if isinstance(prediction, Prediction)]

    def predict_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Prediction]:
        """Predict the rows of a table or of a stream, in their order and in constant memory.

        As `predict_each`; raises DataError for a row that can't be read, after the predictions of the rows before it.
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
        """A prediction for each row, or in the place of a row that can't be read its error, which names the line.

        Rows are read, and errors of the whole table raised, as by `BundleTokenizer.encode_each`; some rows are
        tokenised while those before them are predicted.
        """
        return self._predict(ahead(self._tokenizer.encode_each(source, table_format, warn)))

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
