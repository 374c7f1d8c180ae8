"""Tokenization of texts into a bundle's inputs, without mxnet."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.bundle import TOKENIZER, Bundle, SymbolBundle, open_any
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.inference.prefetch import choose_chunking
from bertsym.inference.task_bundle import TaskBundle, complete_table_format, task_of
from bertsym.json_reader import JsonValue
from bertsym.signature import Signature
from bertsym.tasks import TASKS
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import (
    as_examples,
    encode_in_one_window,
    encode_rows,
    encode_table,
    encode_truncated,
    text_rows,
)
from bertsym.tasks.task import Example, Reading, Task
from bertsym.text.features import Features
from bertsym.text.table_format import TableFormat
from bertsym.text.tokenizer import Encoded, chunks

_ALIGNED = 64  # texts whose alignment is in memory at the same time


class BundleTokenizer:
    """Tokenizes texts into the inputs of a bundle, as `Classifier` does, without mxnet; create it by `open`.

    A text with the same ids as here has the same prediction in any program that feeds these inputs. ``signature`` has
    the names of the inputs, the maximum length and the ids of special tokens.
    """

    def __init__(self, signature: Signature, bundle: Bundle | SymbolBundle) -> None:
        self.signature = signature
        self._bundle = bundle
        self._tokenizer = bundle.tokenizer(signature.tokenizer, signature.max_length)

    @classmethod
    def open(cls, prefix: str | Path) -> BundleTokenizer:
        """Open the tokenizer of a BERT's bundle, headless or with any head.

        Raises ModelError for any other bundle, and if a file of the bundle was changed.
        """
        bundle = open_any(prefix)
        return cls(_bert_signature(bundle), bundle)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, prompt: str = ""
    ) -> Iterator[Features]:
        """Encode texts, or text pairs, in order and in chunks; `prompt` is put before each text.

        Raises UsageError for pairs if the bundle is a classifier trained on single texts, and vice versa; DataError for
        an empty text.
        """
        rows = text_rows(texts, pairs, self._pair)
        reading = Reading(self._tokenizer, pair=self._pair, prompt=prompt)
        encoded = encode_rows(rows, reading, "the texts", encode_truncated)
        return _raise_first_error(each for _, each in encoded)

    def encode_windows(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, stride: int | None = None
    ) -> Iterator[list[Encoded]]:
        """Yield for each text, or pair, its inputs with the ``alignment`` of their tokens: offsets in characters.

        With a `stride`, a text that is too long gives several overlapping windows, each of which begins with the last
        `stride` tokens of the one before; of a pair, the second text is cut, and each window has the whole first text.
        Without it, a text that is too long is truncated. Raises the errors of `encode`, and DataError for a text that
        can't be tokenized.
        """
        rows = text_rows(texts, pairs, self._pair)
        for start in range(0, len(rows), _ALIGNED):
            some = slice(start, start + _ALIGNED)
            found = self._tokenizer.encode_windows(texts[some], None if pairs is None else pairs[some], stride)
            for row, windows in zip(rows[some], found):
                if isinstance(windows, DataError):
                    raise DataError(f"text {row.line} of {len(rows)}: {windows}")
                if any(window.empty for window in windows):
                    raise DataError(f"text {row.line} of {len(rows)}: no tokens (only control characters?)")
                yield windows

    def encode_table(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
    ) -> Iterator[Features]:
        """Encode the rows of a table or stream in order, in chunks and in constant memory.

        Like `encode_each`, but raises DataError, naming the line, for an unreadable row, after the rows before it.
        """
        return _raise_first_error(self.encode_each(source, table_format, warn))

    def encode_each(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        *,
        prompt: str = "",
        full_chunks: bool = False,
    ) -> Iterator[list[Encoded | DataError]]:
        """Yield chunks with the encoding of each row of a table or stream, or the error of an unreadable row.

        By default a table has the header and columns of the training table. A stream has one text per line, or two
        texts separated by a tab if the classifier was trained on pairs, unless `table_format` is given. `warn` is
        called with a message about a suspicious first line. `prompt` is put before each text, of a pair before the
        first. A chunk of a pipe, terminal or socket is what has arrived, unless `full_chunks` are wanted.

        While iterating, raises DataError for an unreadable table and for a file without rows, and UsageError for pairs
        if the bundle is a classifier trained on single texts, and vice versa.
        """
        table_format = complete_table_format(self.signature, table_format)
        chunking = chunks if full_chunks else choose_chunking(source)
        reading = Reading(self._tokenizer, table_format, self._pair, prompt, warn=warn, chunking=chunking)
        for _, encoded in encode_table(source, reading, encode_truncated, self.signature.class_names):
            yield encoded

    def examples(
        self,
        source: str | Path | BinaryIO,
        table_format: TableFormat = TableFormat(),
        warn: Callable[[str], object] = lambda text: None,
        *,
        stride: int | None = None,
    ) -> Iterator[list[Example | DataError]]:
        """Yield chunks of the examples that ``bertsym predict`` reads in a file or stream, or errors in their place.

        A long text is cut into the windows that are predicted, which share `stride` tokens; None: as in the training.
        `records` returns the inputs of an example. The arguments and errors are those of `encode_each`; raises
        UsageError for a stride if the model has no trained head that takes one.
        """
        task = self._task_with(stride)
        reading = dataclasses.replace(self._reading(table_format, warn), chunking=choose_chunking(source))
        if task is not None:
            return task.examples(source, reading)
        return as_examples(encode_table(source, reading, encode_in_one_window, self.signature.class_names))

    def text_examples(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, stride: int | None = None
    ) -> Iterator[list[Example | DataError]]:
        """Yield chunks of texts, or text pairs, as `examples` does; raises the errors of `encode` too."""
        task, reading = self._task_with(stride), self._reading()
        if task is not None:
            return task.encode_texts(texts, pairs, reading)
        return as_examples(encode_rows(text_rows(texts, pairs, self._pair), reading, "the texts", encode_in_one_window))

    def records(self, example: Example, number: int) -> Iterator[dict[str, Any]]:
        """Yield the inputs of each window of an example by name, and what decoding its outputs needs: JSON values.

        If there are several windows, each has `number`, that of the example, as ``example``.
        """
        for window, inputs in enumerate(Features([*example.windows]).inputs(self.signature.input_names)):
            record: dict[str, Any] = {**inputs}
            if len(example.windows) > 1:
                record["example"] = number
            if example.truncated:
                record["truncated"] = True
            yield {**record, **(self._task.token_places(example, window) if self._task is not None else {})}

    @functools.cached_property
    def _task(self) -> Task | None:
        """The task of a trained head whose examples are read as in training; None for other bundles."""
        if not isinstance(self._bundle, Bundle) or not self.signature.trained:
            return None
        kind = TASKS.get(self.signature.task or "")
        return task_of(self._bundle, kind) if kind is not None and kind.is_trainable else None

    def _task_with(self, stride: int | None) -> Task | None:
        if self._task is not None:
            return self._task.with_options(TaskOptions(stride=stride))
        if stride is not None:
            raise UsageError(f"--stride {stride}: {self._bundle.prefix} has no trained head that takes a stride")
        return None

    def _reading(
        self, table_format: TableFormat = TableFormat(), warn: Callable[[str], object] = lambda text: None
    ) -> Reading:
        if self._task is not None:
            assert isinstance(self._bundle, Bundle)
            return TaskBundle(self._bundle, self._task).reading(table_format, warn=warn)
        table_format = complete_table_format(self.signature, table_format)
        return Reading(self._tokenizer, table_format, self._pair, warn=warn)

    @property
    def _pair(self) -> bool | None:
        """Whether texts must be pairs; an encoder or an untrained head may be trained on either."""
        return self.signature.pair if self.signature.task is not None and self.signature.trained else None


def _raise_first_error(encoded: Iterable[list[Encoded | DataError]]) -> Iterator[Features]:
    """Yield the examples before the first error, then raise it."""
    for chunk in encoded:
        examples: list[Encoded] = []
        for example in chunk:
            if isinstance(example, DataError):
                if examples:
                    yield Features(examples)
                raise example
            examples.append(example)
        yield Features(examples)


def _bert_signature(bundle: Bundle | SymbolBundle) -> Signature:
    """Return the signature with the tokenizer settings; a part or an edited copy of a BERT has that of its origin."""
    if isinstance(bundle, Bundle):
        return bundle.signature
    origin = bundle.signature.origin
    if origin is None or not bundle.has(TOKENIZER):
        raise ModelError(f"{bundle.prefix}: has no tokenizer, because the model that it was made from has none")
    # A head of its own was not trained on the origin's texts.
    signature = dataclasses.replace(Signature.from_json(JsonValue(origin, "origin")), trained=False)
    inputs = [tensor.name for tensor in bundle.signature.inputs]
    if sorted(inputs) != sorted(signature.input_names):
        raise ModelError(f"{bundle.prefix}: its inputs are {', '.join(inputs)}, not those of a BERT")
    return signature
