"""Prediction for texts, tables and streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, cast

from bertsym.bundle import Bundle
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.inference.engine_predictor import open_predictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.prefetch import choose_chunking, prefetch
from bertsym.inference.task_bundle import TaskBundle
from bertsym.tasks.classification import Classification, Prediction
from bertsym.tasks.masked_lm import MaskedLM, MaskPrediction
from bertsym.tasks.multilabel import LabelsPrediction, Multilabel
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.qa import QuestionAnswering, QuestionPrediction
from bertsym.tasks.regression import Regression, ValuePrediction
from bertsym.tasks.table_task import TableTask
from bertsym.tasks.tag_prediction import TagPrediction
from bertsym.tasks.tagging import Tagging
from bertsym.tasks.task import Example, Task
from bertsym.tasks.task import Prediction as AnyPrediction
from bertsym.text.features import Features
from bertsym.text.table_format import TableFormat

P = TypeVar("P", bound=AnyPrediction)
K = TypeVar("K", bound=Task)


class TaskPredictor(Generic[P]):
    """A bundle with a trained head of any task, opened for prediction.

    `task_options` replace settings of the task that it was trained with. Raises ModelError if `prefix` is not a bundle
    with a trained head for a task that can be predicted, UsageError for options that its task does not have.
    """

    def __init__(
        self,
        prefix: str | Path,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
        task_options: TaskOptions = TaskOptions(),
    ) -> None:
        self._opened = TaskBundle.open(prefix, "predict")
        self.bundle: Bundle = self._opened.bundle
        self.task: Task = self._opened.task.with_options(task_options)
        self._predictor = open_predictor(self.bundle, device, batch_size, selects=True)

    def _require(self, kind: type[K], what: str) -> K:
        """Return the bundle's task; raises ModelError unless it is of a kind."""
        if not isinstance(self.task, kind):
            raise ModelError(f"{self.bundle.prefix}: is not {what}, its task is {self.task.name}")
        return self.task

    def predict_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> Iterator[P | DataError]:
        """Yield for each example of a file or stream its prediction, or the error of an unreadable row.

        Errors of rows name the line. By default a table has the header and columns of the training table. A stream has
        one text per line, or two texts separated by a tab if the model was trained on pairs, unless `table_format` is
        given. `warn` is called with a message about a suspicious first line. Rows are tokenized while earlier rows are
        predicted. Each row of a pipe or terminal is predicted when it has arrived.
        `on_rows` is called with the number of rows in each finished batch.

        While iterating, raises DataError for an unreadable table and for a file without rows, and UsageError for pairs
        if the model was trained on single texts, and vice versa.
        """
        for answer in self.predict_kept(source, table_format, warn, on_rows):
            yield answer if isinstance(answer, DataError) else answer[1]

    def predict_kept(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> Iterator[tuple[tuple[Any, ...], P] | DataError]:
        """Like `predict_each`, but yield with each prediction the cells of the columns ``table_format.kept``.

        Raises UsageError for such columns if the examples of the task are not the rows of a table.
        """
        if table_format.kept and not isinstance(self.task, TableTask):
            raise UsageError(f"--keep-column {table_format.kept[0]}: the examples of {self.task.name} have no columns")
        reading = self._opened.reading(table_format, warn=warn)
        reading = dataclasses.replace(reading, chunking=choose_chunking(source))
        return self._predict(prefetch(self.task.examples(source, reading)), on_rows)

    def predict_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[P]:
        """Yield the predictions for the rows of a table or stream in order, in constant memory.

        Like `predict_each`, but raises DataError for an unreadable row, after the predictions of the rows before it.
        """
        for prediction in self.predict_each(source, table_format, warn):
            if isinstance(prediction, DataError):
                raise prediction
            yield prediction

    def _predict(
        self,
        chunks: Iterable[Sequence[Example | DataError]],
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> Iterator[tuple[tuple[Any, ...], P] | DataError]:
        for chunk in chunks:
            examples = [example for example in chunk if isinstance(example, Example)]
            features = Features([window for example in examples for window in example.windows])
            # An example of several windows is finished in several batches.
            by_batch = on_rows if len(features) == len(examples) else lambda count: None
            outputs = self._predictor.each(features, self.task.keep, by_batch) if len(features) else []
            on_rows(len(chunk) - (len(examples) if by_batch is on_rows else 0))
            predictions = cast(Iterator[P], self.task.predictions(outputs, examples) if examples else iter(()))
            for example in chunk:
                yield example if isinstance(example, DataError) else (example.kept, next(predictions))

    def predict_texts(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[P]:
        """Predict texts, or text pairs.

        Raises UsageError for pairs if the model was trained on single texts, and vice versa; DataError for an empty
        text and for the first text that can't be encoded.
        """
        return self._predict_all(self.task.encode_texts(texts, pairs, self._opened.reading()))

    def _predict_all(self, chunks: Iterable[Sequence[Example | DataError]]) -> list[P]:
        predictions: list[P] = []
        for answer in self._predict(chunks):
            if isinstance(answer, DataError):
                raise answer
            predictions.append(answer[1])
        return predictions


class Classifier(TaskPredictor[Prediction]):
    """A trained single-label classifier, opened for prediction; raises ModelError if `prefix` is not one.

    With a `stride`, texts that are too long are read in windows that overlap by that number of tokens, and the
    probabilities of the windows are averaged; None: as it was trained.
    """

    def __init__(
        self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE, *, stride: int | None = None
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(stride=stride))
        self._require(Classification, "a classifier")
        self.class_names = self.task.class_names

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predict the label of texts, or of text pairs; raises the errors of `predict_texts`."""
        return self.predict_texts(texts, pairs)


class MultilabelClassifier(TaskPredictor[LabelsPrediction]):
    """A trained multi-label classifier, opened for prediction; raises ModelError if `prefix` is not one.

    A label is predicted if its probability is at least `threshold`; None: the threshold that was tuned for it, or 0.5.
    With a `stride`, the probabilities of the windows of a long text are averaged, as in `Classifier`.
    """

    def __init__(
        self,
        prefix: str | Path,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
        *,
        threshold: float | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(threshold=threshold, stride=stride))
        self._require(Multilabel, "a multi-label classifier")
        self.class_names = self.task.class_names

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[LabelsPrediction]:
        """Predict the labels of texts, or of text pairs; raises the errors of `predict_texts`."""
        return self.predict_texts(texts, pairs)


class Regressor(TaskPredictor[ValuePrediction]):
    """A trained regression model or cross-encoder, opened for prediction; raises ModelError if `prefix` is not one.

    `sigmoid` is whether a value is the sigmoid of the model's output; None: as its signature says. With a `stride`, the
    outputs for the windows of a long text are averaged, before the sigmoid, as in `Classifier`.
    """

    def __init__(
        self,
        prefix: str | Path,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
        *,
        sigmoid: bool | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(sigmoid=sigmoid, stride=stride))
        self._require(Regression, "a regression model")

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[ValuePrediction]:
        """Predict the value of texts, or of text pairs; raises the errors of `predict_texts`."""
        return self.predict_texts(texts, pairs)


class Tagger(TaskPredictor[TagPrediction]):
    """A trained tagger, opened for prediction; raises ModelError if `prefix` is not one.

    With a `stride`, long texts are read in windows that overlap by that number of tokens; None: as it was trained.
    """

    def __init__(
        self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE, stride: int | None = None
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(stride=stride))
        self._tagging = self._require(Tagging, "a tagger")
        self.tags = self.task.class_names

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[TagPrediction]:
        """Predict the tags of the words of texts, and their entities; a text may be a list of words.

        Raises DataError for an empty text.
        """
        return self._predict_all(self._tagging.encode_texts(texts, None, self._opened.reading()))


class QuestionAnswerer(TaskPredictor[QuestionPrediction]):
    """A model that answers questions about contexts; raises ModelError if `prefix` is not one.

    A context that is too long is read in windows that overlap by `stride` tokens; None: as it was trained.
    """

    def __init__(
        self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE, *, stride: int | None = None
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(stride=stride))
        if not isinstance(self.task, QuestionAnswering):
            raise ModelError(f"{self.bundle.prefix}: does not answer questions, its task is {self.task.name}")

    def predict(self, questions: Sequence[str], contexts: Sequence[str]) -> list[QuestionPrediction]:
        """Answer each question from its context, of any length.

        Raises UsageError for lists of different lengths, DataError for an empty text.
        """
        return self.predict_texts(questions, contexts)


class MaskFiller(TaskPredictor[MaskPrediction]):
    """A masked language model, opened for prediction; raises ModelError if `prefix` is not one.

    `top_k` is the number of words for each mask; None: 5.
    """

    def __init__(
        self, prefix: str | Path, device: str = "cpu", batch_size: int = BATCH_SIZE, *, top_k: int | None = None
    ) -> None:
        super().__init__(prefix, device, batch_size, TaskOptions(top_k=top_k))
        self._require(MaskedLM, "a masked language model")

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[MaskPrediction]:
        """Predict the words in place of the mask tokens of texts, or of text pairs.

        Raises DataError for a text without a mask token, or whose mask token is beyond the maximum length, and the
        errors of `predict_texts`.
        """
        return self.predict_texts(texts, pairs)
